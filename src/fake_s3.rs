//! A small S3 for tests: one bucket in memory behind a real socket, addressed by path, with faults on demand.
//!
//! Not for checking signatures: a request needs no more than the right access key's name in its own.

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

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The answer is an error.
    Status(u16),
    /// The connection ends in the middle: of the request's body where it has one, else of the answer.
    Cut,
    /// The answer comes late.
    Slow(Duration),
}

/// The server; it ends with the value.
pub struct FakeS3 {
    address: SocketAddr,
    bucket: Arc<Bucket>,
}

#[derive(Default)]
struct Bucket {
    shelf: Mutex<Shelf>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Shelf {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
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

impl FakeS3 {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, bucket) = (listener.local_addr().unwrap(), Arc::<Bucket>::default());
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

    /// The environment in which `s3://bucket/…` lies here.
    pub fn environment(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let pairs = [
            ("ACCESS_KEY_ID", "friend"),
            ("SECRET_ACCESS_KEY", "s"),
            ("REGION", "here"),
            ("ENDPOINT_URL", &endpoint),
            ("ALLOW_HTTP", "true"),
        ];
        pairs.iter().map(|(name, value)| (format!("AWS_{name}"), (*value).to_owned())).collect()
    }

    /// Lets the next `times` requests go wrong whose `METHOD KEY?QUERY` contains `part`.
    pub fn fail(&self, part: &str, times: usize, fault: Fault) {
        self.bucket.shelf().faults.push((part.into(), times, fault));
    }

    /// Forgets faults that are still to come, and the requests seen; returns those, as `METHOD KEY?QUERY`.
    pub fn reset(&self) -> Vec<String> {
        let mut shelf = self.bucket.shelf();
        shelf.faults.clear();
        std::mem::take(&mut shelf.seen)
    }

    /// Keys of the objects that are there, and the number of uploads that are neither complete nor taken back.
    pub fn contents(&self) -> (Vec<String>, usize) {
        let shelf = self.bucket.shelf();
        (shelf.objects.keys().cloned().collect(), shelf.uploads.len())
    }
}

impl Drop for FakeS3 {
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
                _ => self.shelf().answer(&request),
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
        let query =
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (name.into(), decoded(value))).collect();
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
        let query: Vec<String> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
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
        let fault = self.faults.iter_mut().find(|(part, times, _)| *times > 0 && said.contains(part.as_str()));
        self.seen.push(said);
        fault.map(|(_, times, fault)| {
            *times -= 1;
            *fault
        })
    }

    fn answer(&mut self, request: &Request) -> Answer {
        if !request.headers.get("authorization").is_some_and(|text| text.contains("Credential=friend/")) {
            return Answer::error(403, "InvalidAccessKeyId");
        }
        let upload = request.query.get("uploadId").cloned();
        match (request.method.as_str(), upload) {
            ("GET", _) if request.query.contains_key("list-type") => self.list(&request.query),
            ("GET" | "HEAD", _) => self.get(request),
            ("PUT", Some(upload)) => match (self.uploads.get_mut(&upload), request.query["partNumber"].parse()) {
                (Some(parts), Ok(number)) => {
                    let tag = etag(&request.body);
                    parts.insert(number, request.body.clone());
                    Answer { status: 200, headers: tag, body: Vec::new() }
                }
                _ => Answer::error(404, "NoSuchUpload"),
            },
            ("PUT", None) => {
                let tag = etag(&request.body);
                self.objects.insert(request.key.clone(), request.body.clone());
                Answer { status: 200, headers: tag, body: Vec::new() }
            }
            ("POST", None) if request.query.contains_key("uploads") => {
                let id = format!("upload-{}", self.seen.len());
                self.uploads.insert(id.clone(), BTreeMap::new());
                Answer::xml(&format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
            }
            ("POST", Some(upload)) => self.complete(&upload, request),
            ("DELETE", Some(upload)) => {
                self.uploads.remove(&upload);
                Answer { status: 204, headers: String::new(), body: Vec::new() }
            }
            ("DELETE", None) => {
                self.objects.remove(&request.key);
                Answer { status: 204, headers: String::new(), body: Vec::new() }
            }
            _ => Answer::error(400, "NotImplemented"),
        }
    }

    fn get(&self, request: &Request) -> Answer {
        let Some(whole) = self.objects.get(&request.key) else { return Answer::error(404, "NoSuchKey") };
        let headers = etag(whole) + "Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n";
        match request.range(whole.len()) {
            Some((start, end)) => {
                let headers = format!("{headers}Content-Range: bytes {start}-{}/{}\r\n", end - 1, whole.len());
                Answer { status: 206, headers, body: whole[start..end].to_vec() }
            }
            None => Answer { status: 200, headers, body: whole.clone() },
        }
    }

    /// Puts parts together; as with the strictest of the services, all but the last are equally long.
    fn complete(&mut self, upload: &str, request: &Request) -> Answer {
        let Some(parts) = self.uploads.get(upload) else { return Answer::error(404, "NoSuchUpload") };
        let listed = String::from_utf8_lossy(&request.body).matches("<PartNumber>").count();
        let long = parts.values().next().map_or(0, Vec::len);
        let fits = parts.iter().enumerate().all(|(at, (number, part))| *number == at + 1 && (part.len() == long || at + 1 == parts.len()));
        if !fits || listed != parts.len() {
            return Answer::error(400, "InvalidPart");
        }
        let whole = parts.values().flatten().copied().collect();
        self.uploads.remove(upload);
        self.objects.insert(request.key.clone(), whole);
        Answer::xml("<CompleteMultipartUploadResult><ETag>\"parts\"</ETag></CompleteMultipartUploadResult>")
    }

    /// What is right below a prefix, page by page.
    fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        let prefix = query.get("prefix").map_or("", String::as_str);
        assert_eq!(query["delimiter"], "/");
        let mut entries: Vec<String> = Vec::new();
        for (key, bytes) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let entry = match key[prefix.len()..].split_once('/') {
                Some((folder, _)) => format!("<CommonPrefixes><Prefix>{prefix}{folder}/</Prefix></CommonPrefixes>"),
                None => {
                    let when = "<LastModified>2025-01-01T00:00:00.000Z</LastModified>";
                    format!("<Contents><Key>{key}</Key><Size>{}</Size>{when}</Contents>", bytes.len())
                }
            };
            if entries.last() != Some(&entry) {
                entries.push(entry);
            }
        }
        let start = query.get("continuation-token").map_or(0, |token| token.parse().unwrap());
        let mut body = entries.iter().skip(start).take(PAGE).cloned().collect::<String>();
        if start + PAGE < entries.len() {
            write!(body, "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>", start + PAGE).unwrap();
        }
        Answer::xml(&format!("<ListBucketResult>{body}</ListBucketResult>"))
    }
}

impl Answer {
    fn xml(text: &str) -> Self {
        Self { status: 200, headers: "Content-Type: application/xml\r\n".into(), body: text.into() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self { status, ..Self::xml(&format!("<Error><Code>{code}</Code></Error>")) }
    }

    /// The head, which tells the body's length in any case, and the body where it is wanted.
    fn bytes(&self, with_body: bool) -> Vec<u8> {
        let length = self.body.len();
        let mut bytes = format!("HTTP/1.1 {} Said\r\n{}Content-Length: {length}\r\n\r\n", self.status, self.headers).into_bytes();
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
