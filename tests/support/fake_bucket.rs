//! A small object store for tests: one bucket in memory behind a real socket, addressed by path,
//! with faults on demand. It speaks as Amazon S3, as Google Cloud Storage (its XML interface) or as
//! Azure Blob Storage.
//!
//! Not for checking signatures: a request needs no more than the right name in its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// Entries in an answer to a listing; what is left comes with the next one.
const PAGE: usize = 2;

/// When everything was written.
const WHEN: &str = "Wed, 01 Jan 2025 00:00:00 GMT";

/// Whose requests are understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speech {
    Amazon,
    Google,
    Azure,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The answer is an error.
    Status(u16),
    /// The connection ends in the middle: of the request's body where it has one, else of the
    /// answer.
    Cut,
    /// The answer comes late.
    Slow(Duration),
}

/// The server; it ends with the value.
pub struct FakeBucket {
    address: SocketAddr,
    bucket: Arc<Bucket>,
}

struct Bucket {
    speech: Speech,
    shelf: Mutex<Shelf>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Shelf {
    objects: BTreeMap<String, Vec<u8>>,
    /// Parts by upload and number.
    uploads: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    /// Azure's way: blocks by key and name, of which a later list makes an object.
    blocks: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    faults: Vec<(String, usize, Fault)>,
    seen: Vec<String>,
    connections: Vec<TcpStream>,
}

struct Request {
    method: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl FakeBucket {
    pub fn new(speech: Speech) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bucket =
            Arc::new(Bucket { speech, shelf: Mutex::default(), closed: AtomicBool::new(false) });
        let address = listener.local_addr().unwrap();
        let served = bucket.clone();
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if served.closed.load(Ordering::Relaxed) {
                    break;
                }
                served.shelf().connections.push(connection.try_clone().unwrap());
                let served = served.clone();
                thread::spawn(move || served.serve(&connection));
            }
        });
        Self { address, bucket }
    }

    /// The bucket's URL, with a prefix.
    pub fn url(&self, prefix: &str) -> String {
        let scheme = match self.bucket.speech {
            Speech::Amazon => "s3",
            Speech::Google => "gs",
            Speech::Azure => "az",
        };
        format!("{scheme}://bucket/{prefix}")
    }

    /// The environment in which that lies here, for one who is called `friend`.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let pairs: &[(&str, &str)] = match self.bucket.speech {
            Speech::Amazon => &[
                ("AWS_ACCESS_KEY_ID", "friend"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
                ("AWS_REGION", "here"),
                ("AWS_ENDPOINT_URL", &endpoint),
                ("AWS_ALLOW_HTTP", "true"),
            ],
            Speech::Google => &[
                ("GOOGLE_BEARER_TOKEN", "friend"),
                ("GOOGLE_BASE_URL", &endpoint),
                ("GOOGLE_ALLOW_HTTP", "true"),
            ],
            Speech::Azure => &[
                ("AZURE_STORAGE_ACCOUNT_NAME", "friend"),
                ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
                ("AZURE_STORAGE_ENDPOINT", &endpoint),
                ("AZURE_ALLOW_HTTP", "true"),
            ],
        };
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Lets the next `times` requests go wrong whose `METHOD KEY?QUERY` contains `part`.
    pub fn fail(&self, part: &str, times: usize, fault: Fault) {
        self.bucket.shelf().faults.push((part.into(), times, fault));
    }

    /// Puts an object there, or another in its place.
    #[allow(dead_code, reason = "not every program of tests needs it")]
    pub fn put(&self, key: &str, content: Vec<u8>) {
        self.bucket.shelf().objects.insert(key.into(), content);
    }

    /// Forgets faults that are still to come, and the requests seen; returns those, as `METHOD
    /// KEY?QUERY`.
    pub fn reset(&self) -> Vec<String> {
        let mut shelf = self.bucket.shelf();
        shelf.faults.clear();
        std::mem::take(&mut shelf.seen)
    }

    /// Keys of the objects that are there, and the number of uploads that are neither complete nor
    /// taken back (Azure's blocks go by themselves).
    pub fn contents(&self) -> (Vec<String>, usize) {
        let shelf = self.bucket.shelf();
        (shelf.objects.keys().cloned().collect(), shelf.uploads.len())
    }
}

impl Drop for FakeBucket {
    /// Ends all connections, and refuses new ones from here on.
    fn drop(&mut self) {
        self.bucket.closed.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        for connection in &self.bucket.shelf().connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Bucket {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    fn answer(&self, request: &Request) -> Answer {
        let who = match self.speech {
            Speech::Amazon => "Credential=friend/",
            Speech::Google => "Bearer friend",
            Speech::Azure => "SharedKey friend:",
        };
        if !request.headers.get("authorization").is_some_and(|text| text.contains(who)) {
            return Answer::error(403, "Stranger");
        }
        let mut shelf = self.shelf();
        if self.speech == Speech::Azure {
            shelf.answer_as_azure(request)
        } else {
            shelf.answer(request)
        }
    }

    /// Answers the requests of a connection, until it or a fault ends it.
    fn serve(&self, mut connection: &TcpStream) {
        let mut incoming = BufReader::new(connection.try_clone().unwrap());
        while let Some((mut request, length)) = Request::head(&mut incoming) {
            let fault = self.shelf().fault_of(&request);
            let cut = matches!(fault, Some(Fault::Cut));
            request.body = vec![0; if cut { length / 2 } else { length }];
            if incoming.read_exact(&mut request.body).is_err() {
                break;
            }
            let answer = match fault {
                Some(Fault::Cut) if length > 0 => break,
                Some(Fault::Status(status)) => Answer::error(status, "Fault"),
                _ => self.answer(&request),
            };
            if let Some(Fault::Slow(pause)) = fault {
                thread::sleep(pause);
            }
            let bytes = answer.bytes(request.method != "HEAD");
            let sent = if cut { &bytes[..bytes.len() / 2] } else { &bytes };
            if connection.write_all(sent).is_err() || cut {
                break;
            }
        }
        let _ = connection.shutdown(Shutdown::Both);
    }
}

impl Request {
    /// The head of the next request, with the length of its body.
    fn head(incoming: &mut BufReader<TcpStream>) -> Option<(Self, usize)> {
        let mut lines = incoming.by_ref().lines().map_while(Result::ok);
        let first = lines.next()?;
        let (method, target) = first.split_once(' ')?;
        let target = target.split(' ').next()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.into(), decoded(value)))
            .collect();
        let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        });
        let headers: BTreeMap<String, String> = headers.collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let key = decoded(path.strip_prefix("/bucket")?.trim_start_matches('/'));
        Some((Self { method: method.into(), key, query, headers, body: Vec::new() }, length))
    }

    fn said(&self) -> String {
        let query: Vec<String> =
            self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {}?{}", self.method, self.key, query.join("&"))
    }

    /// The bytes that are asked for, of so many.
    fn range(&self, size: usize) -> Option<(usize, usize)> {
        let (start, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse().ok()?, size.min(last.parse::<usize>().ok()? + 1)))
    }
}

impl Shelf {
    fn fault_of(&mut self, request: &Request) -> Option<Fault> {
        let said = request.said();
        let fault = self
            .faults
            .iter_mut()
            .find(|(part, times, _)| *times > 0 && said.contains(part.as_str()));
        self.seen.push(said);
        fault.map(|(_, times, fault)| {
            *times -= 1;
            *fault
        })
    }

    /// Amazon's requests, which are Google's as well.
    fn answer(&mut self, request: &Request) -> Answer {
        let upload = request.query.get("uploadId").cloned();
        match (request.method.as_str(), upload) {
            ("GET", _) if request.query.contains_key("list-type") => {
                let (entries, next) = self.list(&request.query, "continuation-token");
                Answer::xml(&format!(
                    "<ListBucketResult>{}</ListBucketResult>",
                    listed(&entries, next)
                ))
            }
            ("GET" | "HEAD", _) => self.get(request),
            ("PUT", Some(upload)) => {
                match (self.uploads.get_mut(&upload), request.query["partNumber"].parse()) {
                    (Some(parts), Ok(number)) => {
                        parts.insert(number, request.body.clone());
                        Answer::empty(200, etag(&request.body))
                    }
                    _ => Answer::error(404, "NoSuchUpload"),
                }
            }
            ("PUT", None) => self.put(request, request.body.clone(), 200),
            ("POST", None) if request.query.contains_key("uploads") => {
                let id = format!("upload-{}", self.seen.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                Answer::xml(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>"
                ))
            }
            ("POST", Some(upload)) => self.complete(&upload, request),
            ("DELETE", Some(upload)) => {
                self.uploads.remove(&upload);
                Answer::empty(204, String::new())
            }
            ("DELETE", None) => {
                self.objects.remove(&request.key);
                Answer::empty(204, String::new())
            }
            _ => Answer::error(400, "NotImplemented"),
        }
    }

    fn answer_as_azure(&mut self, request: &Request) -> Answer {
        match (request.method.as_str(), request.query.get("comp").map(String::as_str)) {
            ("GET", Some("list"))
                if request.query.get("restype").is_some_and(|kind| kind == "container") =>
            {
                let (entries, next) = self.list(&request.query, "marker");
                Answer::xml(&format!(
                    "<EnumerationResults>{}</EnumerationResults>",
                    listed_as_azure(&entries, next)
                ))
            }
            ("GET" | "HEAD", None) => self.get(request),
            ("PUT", Some("block")) => {
                let blocks = self.blocks.entry(request.key.clone()).or_default();
                blocks.insert(request.query["blockid"].clone(), request.body.clone());
                Answer::empty(201, String::new())
            }
            ("PUT", Some("blocklist")) => {
                let blocks = self.blocks.remove(&request.key).unwrap_or_default();
                let text = String::from_utf8_lossy(&request.body).into_owned();
                let names = text
                    .split("<Uncommitted>")
                    .skip(1)
                    .filter_map(|rest| rest.split_once("</Uncommitted>"));
                match names.map(|(name, _)| blocks.get(name).cloned()).collect::<Option<Vec<_>>>() {
                    Some(parts) => self.put(request, parts.concat(), 201),
                    None => Answer::error(400, "InvalidBlockList"),
                }
            }
            ("PUT", None)
                if request
                    .headers
                    .get("x-ms-blob-type")
                    .is_some_and(|kind| kind == "BlockBlob") =>
            {
                self.put(request, request.body.clone(), 201)
            }
            ("POST", Some("batch"))
                if request.query.get("restype").is_some_and(|kind| kind == "container") =>
            {
                self.delete_batch(request)
            }
            _ => Answer::error(400, "NotImplemented"),
        }
    }

    fn put(&mut self, request: &Request, bytes: Vec<u8>, status: u16) -> Answer {
        let tag = etag(&bytes);
        self.objects.insert(request.key.clone(), bytes);
        Answer::empty(status, tag)
    }

    /// Azure's way to delete: requests in the parts of a body, each with an answer of its own.
    fn delete_batch(&mut self, request: &Request) -> Answer {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let mut body = String::new();
        for (at, rest) in text.split("\r\nDELETE /bucket/").skip(1).enumerate() {
            let key = decoded(rest.split_once(' ').unwrap().0);
            let status =
                if self.objects.remove(&key).is_some() { "202 Accepted" } else { "404 Not Found" };
            write!(
                body,
                "--part\r\nContent-Type: application/http\r\nContent-ID: {at}\r\n\r\nHTTP/1.1 \
                 {status}\r\nx-ms-version: 1\r\n\r\n"
            )
            .unwrap();
        }
        let headers = "Content-Type: multipart/mixed; boundary=part\r\n".to_owned();
        Answer { status: 202, headers, body: (body + "--part--\r\n").into_bytes() }
    }

    fn get(&self, request: &Request) -> Answer {
        let Some(whole) = self.objects.get(&request.key) else {
            return Answer::error(404, "NoSuchKey");
        };
        let headers = etag(whole) + &format!("Last-Modified: {WHEN}\r\n");
        match request.range(whole.len()) {
            Some((start, end)) if start > end => Answer::error(416, "InvalidRange"),
            Some((start, end)) => {
                let headers = format!(
                    "{headers}Content-Range: bytes {start}-{}/{}\r\n",
                    end - 1,
                    whole.len()
                );
                Answer { status: 206, headers, body: whole[start..end].to_vec() }
            }
            None => Answer { status: 200, headers, body: whole.clone() },
        }
    }

    /// Puts parts together; as with the strictest of the services, all but the last are equally
    /// long.
    fn complete(&mut self, upload: &str, request: &Request) -> Answer {
        let Some(parts) = self.uploads.get(upload) else {
            return Answer::error(404, "NoSuchUpload");
        };
        let listed = String::from_utf8_lossy(&request.body).matches("<PartNumber>").count();
        let long = parts.values().next().map_or(0, Vec::len);
        let fits = parts.iter().enumerate().all(|(at, (number, part))| {
            *number == at + 1 && (part.len() == long || at + 1 == parts.len())
        });
        if !fits || listed != parts.len() {
            return Answer::error(400, "InvalidPart");
        }
        let whole = parts.values().flatten().copied().collect();
        self.uploads.remove(upload);
        self.objects.insert(request.key.clone(), whole);
        Answer::xml(
            "<CompleteMultipartUploadResult><ETag>\"parts\"</ETag></CompleteMultipartUploadResult>",
        )
    }

    /// A page of what is right below a prefix, and where the next one begins.
    fn list(&self, query: &BTreeMap<String, String>, token: &str) -> (Vec<Entry>, Option<usize>) {
        let prefix = query.get("prefix").map_or("", String::as_str);
        assert_eq!(query["delimiter"], "/");
        let mut entries: Vec<Entry> = Vec::new();
        for (key, bytes) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let entry = match key[prefix.len()..].split_once('/') {
                Some((folder, _)) => Entry::Folder(format!("{prefix}{folder}/")),
                None => Entry::File(key.clone(), bytes.len()),
            };
            if entries.last() != Some(&entry) {
                entries.push(entry);
            }
        }
        let start = query.get(token).map_or(0, |token| token.parse().unwrap());
        let next = (start + PAGE < entries.len()).then_some(start + PAGE);
        (entries.into_iter().skip(start).take(PAGE).collect(), next)
    }
}

/// What a listing names.
#[derive(PartialEq)]
enum Entry {
    Folder(String),
    File(String, usize),
}

fn listed(entries: &[Entry], next: Option<usize>) -> String {
    let body = entries.iter().map(|entry| match entry {
        Entry::Folder(name) => format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"),
        Entry::File(name, size) => {
            let when = "<LastModified>2025-01-01T00:00:00.000Z</LastModified>";
            format!("<Contents><Key>{name}</Key><Size>{size}</Size>{when}</Contents>")
        }
    });
    let more = next.map(|at| {
        format!(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>{at}</NextContinuationToken>"
        )
    });
    body.chain(more).collect()
}

fn listed_as_azure(entries: &[Entry], next: Option<usize>) -> String {
    let body: String = entries.iter().map(Entry::as_azure).collect();
    format!(
        "<Blobs>{body}</Blobs><NextMarker>{}</NextMarker>",
        next.map(|at| at.to_string()).unwrap_or_default()
    )
}

impl Entry {
    fn as_azure(&self) -> String {
        match self {
            Self::Folder(name) => format!("<BlobPrefix><Name>{name}</Name></BlobPrefix>"),
            Self::File(name, size) => {
                let kind = "<Content-Type>application/octet-stream</Content-Type>";
                let about = format!(
                    "<Last-Modified>{WHEN}</Last-Modified>\
                     <Content-Length>{size}</Content-Length>{kind}"
                );
                format!("<Blob><Name>{name}</Name><Properties>{about}</Properties></Blob>")
            }
        }
    }
}

impl Answer {
    fn xml(text: &str) -> Self {
        Self { status: 200, headers: "Content-Type: application/xml\r\n".into(), body: text.into() }
    }

    fn empty(status: u16, headers: String) -> Self {
        Self { status, headers, body: Vec::new() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self { status, ..Self::xml(&format!("<Error><Code>{code}</Code></Error>")) }
    }

    /// The head, which tells the body's length in any case, and the body where it is wanted.
    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let length = self.body.len();
        let mut bytes = format!(
            "HTTP/1.1 {} Said\r\n{}Content-Length: {length}\r\n\r\n",
            self.status, self.headers
        )
        .into_bytes();
        if with_body {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("ETag: \"{:08x}\"\r\n", crc32fast::hash(bytes))
}

/// A part of an address without its percent signs; names here are ASCII.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        plain.push(u8::from_str_radix(&part[..2], 16).unwrap().into());
        plain += &part[2..];
    }
    plain
}
