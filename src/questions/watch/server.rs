//! Just enough HTTP to answer a browser on a socket of the standard library: one request a
//! connection, no bodies, everything within a deadline.
//!
//! A client that is silent, slow or talks nonsense costs one thread until the deadline, and there
//! are few such threads. Not for: what is answered (`browser`).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// Header lines of a request at most.
const HEADERS: usize = 64;

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientLimits {
    /// Time for a request and its answer.
    pub time: Duration,
    /// Bytes of a request.
    pub bytes: usize,
    /// Clients at once.
    pub clients: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(5), bytes: 8192, clients: 32 }
    }
}

/// A request as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebRequest {
    /// Its method.
    pub method: String,
    /// What is asked for.
    pub target: String,
    /// The name by which the server was called.
    pub host: Option<String>,
}

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ParsedRequest {
    /// A whole request.
    Whole(WebRequest),
    /// The beginning of one.
    Part,
    /// No request.
    Nonsense,
}

impl ParsedRequest {
    /// Reads the bytes that have come so far.
    pub fn of(bytes: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Partial) => Self::Part,
            Err(_) => Self::Nonsense,
            Ok(httparse::Status::Complete(_)) => {
                let host = request.headers.iter().find(|one| one.name.eq_ignore_ascii_case("host"));
                Self::Whole(WebRequest {
                    method: request.method.unwrap_or_default().to_owned(),
                    target: request.path.unwrap_or_default().to_owned(),
                    host: host.map(|host| String::from_utf8_lossy(host.value).trim().to_owned()),
                })
            }
        }
    }
}

/// An answer, with its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebAnswer(Vec<u8>);

impl WebAnswer {
    /// A page whose only script carries `nonce`.
    pub fn page(text: &str, nonce: &str) -> Self {
        let policy = format!(
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src \
             'nonce-{nonce}'; connect-src 'self'; img-src data:; frame-ancestors 'none'\r\n"
        );
        Self::new(200, "text/html; charset=utf-8", &policy, text)
    }

    /// Data.
    pub fn json(status: u16, text: &str) -> Self {
        Self::new(status, "application/json", "", text)
    }

    /// A sentence.
    pub fn text(status: u16, text: &str) -> Self {
        let more = if status == 405 { "Allow: GET\r\n" } else { "" };
        Self::new(status, "text/plain; charset=utf-8", more, text)
    }

    fn new(status: u16, kind: &str, more: &str, text: &str) -> Self {
        let reason = match status {
            200 => "OK",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        };
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n{more}Connection: close\r\n\r\n",
            text.len()
        );
        Self([head.as_bytes(), text.as_bytes()].concat())
    }

    /// Head and text.
    #[cfg(test)]
    pub fn whole_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// What answers requests.
pub(super) type Answering = dyn Fn(&WebRequest) -> WebAnswer + Send + Sync;

/// Answers every client of a socket, each on a thread of its own. Does not return.
///
/// # Errors
/// If the socket is no longer one.
pub(super) fn answer_all(
    listener: &TcpListener,
    limits: ClientLimits,
    answering: &Arc<Answering>,
) -> Result<()> {
    let clients = Arc::<AtomicUsize>::default();
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error.into()),
            // A client that is gone already, or no file handle left for it.
            Err(_) => {
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        let place = ClientPlace::take(&clients);
        if clients.load(Ordering::Relaxed) > limits.clients {
            let busy = ClientLimits { time: Duration::from_millis(50), ..limits };
            let _ = send(&stream, &WebAnswer::text(503, "too many clients\n"), busy.deadline());
            continue;
        }
        let answering = answering.clone();
        // Where the system has no thread left, the client is dropped.
        let _ = thread::Builder::new().name("watch-client".into()).spawn(move || {
            let _place = place;
            // A client that goes away in the middle harms nobody.
            let _ = serve_client(&stream, limits, answering.as_ref());
        });
    }
}

/// A client's place among those that are served.
struct ClientPlace(Arc<AtomicUsize>);

impl ClientPlace {
    fn take(clients: &Arc<AtomicUsize>) -> Self {
        clients.fetch_add(1, Ordering::Relaxed);
        Self(clients.clone())
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ClientLimits {
    fn deadline(&self) -> Instant {
        Instant::now() + self.time
    }
}

/// Reads one request and answers it.
fn serve_client(
    stream: &TcpStream,
    limits: ClientLimits,
    answering: &Answering,
) -> std::io::Result<()> {
    let deadline = limits.deadline();
    let mut bytes = Vec::new();
    let answer = loop {
        match ParsedRequest::of(&bytes) {
            ParsedRequest::Whole(request) => break answering(&request),
            ParsedRequest::Nonsense => break WebAnswer::text(400, "this is no request\n"),
            ParsedRequest::Part if bytes.len() >= limits.bytes => {
                break WebAnswer::text(431, "the request is too long\n");
            }
            ParsedRequest::Part => {}
        }
        let mut part = [0; 1024];
        let count = read_within(stream, &mut part, deadline)?;
        if count == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&part[..count]);
    };
    send(stream, &answer, deadline)?;
    stream.shutdown(Shutdown::Write)?;
    // What is left unread when a socket is closed takes the answer with it.
    let mut rest = [0; 4096];
    for _ in 0..64 {
        if read_within(stream, &mut rest, deadline)? == 0 {
            break;
        }
    }
    Ok(())
}

fn read_within(mut stream: &TcpStream, part: &mut [u8], end: Instant) -> std::io::Result<usize> {
    stream.set_read_timeout(Some(left(end)?))?;
    retried(|| stream.read(part))
}

fn send(mut stream: &TcpStream, answer: &WebAnswer, end: Instant) -> std::io::Result<()> {
    let mut rest = answer.0.as_slice();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        let count = retried(|| stream.write(rest))?;
        if count == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        rest = &rest[count..];
    }
    Ok(())
}

/// Repeats a call that a signal interrupts.
fn retried(mut call: impl FnMut() -> std::io::Result<usize>) -> std::io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The time until a deadline, never 0, which would mean for ever.
fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
