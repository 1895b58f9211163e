//! Questions to the Hub over HTTP: what is known of a file, and its bytes.
//!
//! Redirects are followed here, because the token must not reach another host. Not for: what is
//! done with the bytes (`download`).

use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::failure::Failure;
use super::name::is_commit;
use super::settings::HubSettings;
use crate::base::say;

/// How often somebody is asked who does not answer, and how long a connection may take.
const UNREACHABLE_TRIES: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects that are followed at most.
const REDIRECTS: usize = 5;
/// The longest pause that the Hub may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What the Hub says of a file.
#[derive(Clone, Debug)]
pub(super) struct FileFacts {
    /// The commit that the revision stands for.
    pub commit: Option<String>,
    /// The hash of the content, or another name of it.
    pub etag: String,
    /// Bytes.
    pub size: Option<u64>,
}

/// A connection to the Hub.
pub(super) struct Client<'s> {
    pub settings: &'s HubSettings,
    agent: Agent,
}

impl<'s> Client<'s> {
    /// Connects nowhere yet.
    pub fn new(settings: &'s HubSettings) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let encryption = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(settings.timeout.min(CONNECT_TIMEOUT)))
            .timeout_recv_response(Some(settings.timeout))
            .tls_config(encryption)
            .user_agent(concat!("docre-pretrain/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { settings, agent }
    }

    /// What the Hub says of a file of a revision.
    pub fn facts(&self, id: &str, revision: &str, file: &str) -> Result<FileFacts, Failure> {
        self.patiently(|| {
            let (answer, commit) = self.follow(id, revision, file, Question::Facts)?;
            let headers = answer.headers();
            let commit = text(headers, "x-repo-commit").or(commit);
            let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
            let etag = etag.ok_or_else(|| Failure::Unexpected("no ETag".to_owned()))?;
            let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
            if !is_file_name(&etag) {
                return Err(Failure::Unexpected(format!("the ETag `{etag}`")));
            }
            let size = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
            let size = size.and_then(|size| size.parse().ok());
            // The length of a redirect is not that of the file.
            let moved = answer.status().is_redirection() && !headers.contains_key("x-linked-size");
            let commit = commit.filter(|commit| is_commit(commit));
            Ok(FileFacts { commit, etag, size: size.filter(|_| !moved) })
        })
    }

    /// The bytes of a file of a commit from `start` on; the answer's status tells whether it begins
    /// there (206) or at 0 (200).
    pub fn bytes(
        &self,
        id: &str,
        commit: &str,
        file: &str,
        start: u64,
    ) -> Result<Response<Body>, Failure> {
        self.patiently(|| Ok(self.follow(id, commit, file, Question::Bytes(start))?.0))
    }

    /// Asks again where nobody answers or the Hub is busy; each pause is twice as long as the last.
    fn patiently<T>(&self, ask: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut pause = self.settings.pause;
        for tried in 1.. {
            let failure = match ask() {
                Err(failure) if failure.is_passing() => failure,
                outcome => return outcome,
            };
            let most = match failure {
                Failure::Unreachable(_) => UNREACHABLE_TRIES.min(self.settings.tries),
                _ => self.settings.tries,
            };
            if tried >= most {
                return Err(failure);
            }
            let wait = match failure {
                Failure::Busy { after: Some(after), .. } if after > LONGEST_PAUSE => {
                    return Err(failure);
                }
                Failure::Busy { after: Some(after), .. } => after,
                _ => pause,
            };
            let told = failure.told(&self.settings.endpoint);
            say(format!("{told}; trying again in {:.0} s", wait.as_secs_f64()));
            std::thread::sleep(wait);
            pause *= 2;
        }
        Err(Failure::Unreachable("it was never tried".to_owned()))
    }

    /// Asks, and follows redirects; `Facts` are those of the Hub itself, not of another host. The
    /// commit is that which some answer on the way named.
    fn follow(
        &self,
        id: &str,
        revision: &str,
        file: &str,
        question: Question,
    ) -> Result<(Response<Body>, Option<String>), Failure> {
        let endpoint = &self.settings.endpoint;
        // A revision with slashes is one part of the path.
        let revision = revision.replace('/', "%2F");
        let mut address = format!("{endpoint}/{id}/resolve/{revision}/{file}");
        let mut commit = None;
        for _ in 0..=REDIRECTS {
            let answer = self.ask(&address, question)?;
            commit = text(answer.headers(), "x-repo-commit").or(commit);
            let status = answer.status();
            if status.is_success() {
                return Ok((answer, commit));
            }
            if !status.is_redirection() {
                return Err(refusal(&answer, commit));
            }
            let location = text(answer.headers(), "location")
                .ok_or_else(|| Failure::Unexpected(format!("{status} without a Location")))?;
            let next = absolute(&address, &location);
            if matches!(question, Question::Facts) && !same_host(&next, endpoint) {
                return Ok((answer, commit));
            }
            address = next;
        }
        Err(Failure::Unexpected(format!("more than {REDIRECTS} redirects")))
    }

    fn ask(&self, address: &str, question: Question) -> Result<Response<Body>, Failure> {
        let mut request = match question {
            Question::Facts => self.agent.head(address),
            Question::Bytes(_) => self.agent.get(address),
        };
        request = request.header("Accept-Encoding", "identity");
        if let Question::Bytes(start @ 1..) = question {
            request = request.header("Range", format!("bytes={start}-"));
        }
        if let Some(token) = &self.settings.token
            && same_host(address, &self.settings.endpoint)
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| Failure::Unreachable(error.to_string()))
    }
}

#[derive(Clone, Copy)]
enum Question {
    Facts,
    Bytes(u64),
}

/// What an answer that is no success means.
fn refusal(answer: &Response<Body>, commit: Option<String>) -> Failure {
    let status = answer.status().as_u16();
    let code = text(answer.headers(), "x-error-code").unwrap_or_default();
    match (status, code.as_str()) {
        (429 | 500 | 502..=504, _) => {
            let seconds = text(answer.headers(), "retry-after").and_then(|text| text.parse().ok());
            Failure::Busy { status, after: seconds.map(Duration::from_secs) }
        }
        (_, "GatedRepo") => Failure::Gated,
        (_, "RevisionNotFound") => Failure::NoRevision,
        (_, "RepoNotFound") | (401, _) => Failure::NoRepository,
        (404, _) => Failure::NoEntry(commit.filter(|commit| is_commit(commit))),
        _ => {
            let message = text(answer.headers(), "x-error-message").unwrap_or_default();
            Failure::Unexpected(format!("{status} {message}").trim().to_owned())
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_owned())
}

/// Whether text is the name of a file and nothing more.
fn is_file_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() < 200 && !text.starts_with('.') && text.bytes().all(plain)
}

/// The address of a redirect, which may leave out the host.
fn absolute(from: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let start = from.find("://").map_or(0, |at| at + 3);
    let end = from[start..].find('/').map_or(from.len(), |at| start + at);
    match location.strip_prefix("//") {
        Some(rest) => format!("{}{rest}", &from[..start]),
        None if location.starts_with('/') => format!("{}{location}", &from[..end]),
        None => {
            let folder = from.rfind('/').filter(|&at| at >= end).unwrap_or(end);
            format!("{}/{location}", &from[..folder])
        }
    }
}

fn same_host(address: &str, endpoint: &str) -> bool {
    let host = |text: &str| {
        let uri: Uri = text.parse().ok()?;
        Some((uri.scheme_str()?.to_owned(), uri.authority()?.as_str().to_owned()))
    };
    host(address).is_some_and(|address| host(endpoint) == Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_as_they_are_written() {
        let from = "https://hub.example/a/resolve/main/x";
        for (location, expected) in [
            ("/b/x", "https://hub.example/b/x"),
            ("y", "https://hub.example/a/resolve/main/y"),
            ("//cdn.example/x?a=b/c", "https://cdn.example/x?a=b/c"),
            ("http://cdn.example/x", "http://cdn.example/x"),
        ] {
            assert_eq!(absolute(from, location), expected);
        }
        assert_eq!(absolute("http://h", "/x"), "http://h/x");
    }

    #[test]
    fn a_host_is_the_same_with_scheme_name_and_port() {
        let endpoint = "https://hub.example/prefix";
        assert!(same_host("https://hub.example/a", endpoint));
        for other in ["http://hub.example/a", "https://hub.example:8/a", "https://x.hub.example/"] {
            assert!(!same_host(other, endpoint), "{other}");
        }
        assert!(!same_host("https://hub.example@evil.example/", endpoint));
    }
}
