//! A small Hugging Face Hub for tests: repositories in memory behind a real socket, large files
//! behind another one, with faults on demand. A request costs one connection.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

/// Files from here on are large ones.
pub const LARGE: usize = 1000;

/// What goes wrong with one answer.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "each user needs some of them")]
pub enum Fault {
    /// Another status, with headers.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// The connection ends after so many bytes of the content.
    Cut(usize),
    /// The content is another one of the same length.
    Twisted,
    /// A part is not given: the answer begins at 0.
    Whole,
    /// Nothing comes for so long, after so many bytes of the content.
    Silent(usize, Duration),
}

/// A repository.
#[derive(Clone, Debug, Default)]
pub struct FakeRepo {
    /// Revisions and their commits.
    pub refs: BTreeMap<String, String>,
    /// Files of all commits.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Who may read it; everybody if empty.
    pub token: String,
    /// Whether its terms are not accepted yet.
    pub gated: bool,
}

/// What was asked.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "each user looks at some of it")]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
    /// Whether it was the host of large files that was asked.
    pub at_store: bool,
}

#[derive(Default)]
struct Shelf {
    repos: BTreeMap<String, FakeRepo>,
    /// Faults by the end of the path, with the method; each is used once.
    faults: Vec<(String, String, Fault)>,
    asked: Vec<Asked>,
}

struct Hub {
    shelf: Mutex<Shelf>,
    closed: AtomicBool,
    store: SocketAddr,
}

/// The server; it ends with the value.
pub struct FakeHub {
    hub: Arc<Hub>,
    addresses: [SocketAddr; 2],
}

impl FakeHub {
    /// Listens.
    pub fn new() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [0, 1].map(|i: usize| listeners[i].local_addr().unwrap());
        let hub = Arc::new(Hub {
            shelf: Mutex::default(),
            closed: AtomicBool::new(false),
            store: addresses[1],
        });
        for (number, listener) in listeners.into_iter().enumerate() {
            let hub = Arc::clone(&hub);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if hub.closed.load(Ordering::SeqCst) {
                        return;
                    }
                    let (hub, stream) = (Arc::clone(&hub), stream.unwrap());
                    thread::spawn(move || hub.answer(stream, number == 1));
                }
            });
        }
        Self { hub, addresses }
    }

    /// What `HF_ENDPOINT` names.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.hub.shelf.lock().unwrap()
    }

    /// Puts a repository there whose `main` has these files; returns its commit.
    pub fn put(&self, id: &str, files: &[(&str, &[u8])]) -> String {
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let mut all = id.as_bytes().to_vec();
        files.iter().for_each(|(name, bytes)| all.extend([name.as_bytes(), bytes].concat()));
        let commit = hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &all).as_ref());
        let refs = BTreeMap::from([("main".to_owned(), commit.clone())]);
        self.shelf().repos.insert(id.to_owned(), FakeRepo { refs, files, ..FakeRepo::default() });
        commit
    }

    /// Changes a repository.
    #[allow(dead_code, reason = "each user needs some of them")]
    pub fn change(&self, id: &str, change: impl FnOnce(&mut FakeRepo)) {
        change(self.shelf().repos.get_mut(id).unwrap());
    }

    /// The next request of this method for a path that ends so goes wrong.
    #[allow(dead_code, reason = "each user needs some of them")]
    pub fn fail(&self, method: &str, end: &str, fault: Fault) {
        self.shelf().faults.push((method.to_owned(), end.to_owned(), fault));
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shelf().asked)
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.hub.closed.store(true, Ordering::SeqCst);
        for address in self.addresses {
            drop(TcpStream::connect(address));
        }
    }
}

/// The name of a content, as the Hub has it.
pub fn etag(bytes: &[u8]) -> String {
    if bytes.len() >= LARGE {
        return hex(digest(&SHA256, bytes).as_ref());
    }
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An answer before it is sent.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    content: Vec<u8>,
}

impl Answer {
    fn error(status: u16, code: &str) -> Self {
        let headers = vec![("X-Error-Code".to_owned(), code.to_owned())];
        Self { status, headers, content: b"no".to_vec() }
    }
}

impl Hub {
    fn answer(&self, mut stream: TcpStream, at_store: bool) {
        let Some(asked) = read_request(&stream, at_store) else { return };
        let (answer, fault) = {
            let mut shelf = self.shelf.lock().unwrap();
            shelf.asked.push(asked.clone());
            let fault = shelf.faults.iter().position(|(method, end, _)| {
                *method == asked.method && asked.path.ends_with(end.as_str())
            });
            let fault = fault.map(|at| shelf.faults.remove(at).2);
            (self.respond(&shelf.repos, &asked), fault)
        };
        let (mut answer, mut sent, mut silence) = (answer, usize::MAX, Duration::ZERO);
        match fault {
            Some(Fault::Status(status, headers)) => {
                let headers = headers.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
                answer = Answer { status, headers: headers.collect(), content: Vec::new() };
            }
            Some(Fault::Cut(bytes)) => sent = bytes,
            Some(Fault::Silent(bytes, time)) => (sent, silence) = (bytes, time),
            Some(Fault::Twisted) => answer.content.iter_mut().for_each(|byte| *byte ^= 1),
            Some(Fault::Whole) | None => {}
        }
        let start = asked.range.as_deref().and_then(|range| {
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        let whole = answer.content.len();
        if let Some(start) = start.filter(|_| answer.status == 200)
            && !matches!(fault, Some(Fault::Whole))
        {
            if start >= whole {
                answer = Answer { status: 416, headers: Vec::new(), content: Vec::new() };
            } else {
                answer.status = 206;
                let range = format!("bytes {start}-{}/{whole}", whole - 1);
                answer.headers.push(("Content-Range".to_owned(), range));
                answer.content.drain(..start);
            }
        }
        let mut text = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
        for (name, value) in &answer.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n", answer.content.len());
        let _ = stream.write_all(text.as_bytes());
        if asked.method != "HEAD" {
            let _ = stream.write_all(&answer.content[..sent.min(answer.content.len())]);
        }
        let _ = stream.flush();
        thread::sleep(silence);
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn respond(&self, repos: &BTreeMap<String, FakeRepo>, asked: &Asked) -> Answer {
        if asked.at_store {
            let name = asked.path.rsplit('/').next().unwrap_or_default();
            let mut files = repos.values().flat_map(|repo| repo.files.values());
            return match files.find(|bytes| etag(bytes) == name) {
                Some(bytes) => Answer { status: 200, headers: vec![], content: bytes.clone() },
                None => Answer::error(404, "EntryNotFound"),
            };
        }
        let Some((id, rest)) = asked.path[1..].split_once("/resolve/") else {
            return Answer::error(404, "RepoNotFound");
        };
        let (revision, file) = rest.split_once('/').unwrap_or_default();
        let revision = revision.replace("%2F", "/");
        let Some(repo) = repos.get(id) else { return Answer::error(401, "RepoNotFound") };
        if !repo.token.is_empty() && asked.token.as_deref() != Some(&repo.token) {
            return Answer::error(401, "RepoNotFound");
        }
        if repo.gated {
            return Answer::error(403, "GatedRepo");
        }
        let named =
            repo.refs.get(&revision).or_else(|| repo.refs.values().find(|c| **c == revision));
        let Some(commit) = named else { return Answer::error(404, "RevisionNotFound") };
        let mut headers = vec![("X-Repo-Commit".to_owned(), commit.clone())];
        let Some(content) = repo.files.get(file) else {
            let mut answer = Answer::error(404, "EntryNotFound");
            answer.headers.append(&mut headers);
            return answer;
        };
        let tag = etag(content);
        if content.len() < LARGE {
            headers.push(("ETag".to_owned(), format!("W/\"{tag}\"")));
            return Answer { status: 200, headers, content: content.clone() };
        }
        headers.push(("X-Linked-Etag".to_owned(), format!("\"{tag}\"")));
        headers.push(("X-Linked-Size".to_owned(), content.len().to_string()));
        headers.push(("ETag".to_owned(), "\"of-the-redirect\"".to_owned()));
        headers.push(("Location".to_owned(), format!("http://{}/store/{tag}", self.store)));
        Answer { status: 302, headers, content: b"moved".to_vec() }
    }
}

fn read_request(stream: &TcpStream, at_store: bool) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines().map_while(std::result::Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut range, mut token) = (None, None);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "authorization" => token = Some(value.strip_prefix("Bearer ")?.to_owned()),
            _ => {}
        }
    }
    Some(Asked { method, path, range, token, at_store })
}
