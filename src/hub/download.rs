//! One file of a commit, from the Hub into the cache: `blobs/ETAG.incomplete` grows, is checked,
//! and gets its name at last. What an earlier try left is continued.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::Response;

use super::cache::{RepoCache, make_parent};
use super::client::{Client, FileFacts};
use super::digest;
use super::failure::Failure;
use crate::base::{Progress, say};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 18;
/// How long somebody waits for another process before a line says so, and then between lines.
const WAIT_SAID_AFTER: Duration = Duration::from_secs(5);
const WAIT_SAID_EVERY: Duration = Duration::from_secs(30);
const MEGABYTE: u64 = 1 << 20;

/// A file of a repository.
#[derive(Clone, Copy)]
pub(super) struct RepoFile<'a> {
    pub id: &'a str,
    pub commit: &'a str,
    pub file: &'a str,
}

/// Brings a file into the cache, unless its content is there already.
pub(super) fn download(
    client: &Client,
    cache: &RepoCache,
    from: RepoFile,
    facts: &FileFacts,
) -> Result<(), Failure> {
    let blob = cache.blob(&facts.etag);
    make_parent(&blob)?;
    let _lock = lock(&cache.lock(&facts.etag), from.file)?;
    // Another process may have been here meanwhile.
    let there =
        fs_err::metadata(&blob).is_ok_and(|blob| facts.size.is_none_or(|s| s == blob.len()));
    if !there {
        let incomplete = cache.blob(&format!("{}.incomplete", facts.etag));
        receive(client, from, facts, &incomplete)?;
        fs_err::rename(incomplete, &blob)?;
    }
    Ok(cache.link(from.commit, from.file, &facts.etag)?)
}

/// Fetches until the file is whole and right. A file that continued another try and turned out
/// wrong is fetched from its start once.
fn receive(client: &Client, from: RepoFile, facts: &FileFacts, path: &Path) -> Result<(), Failure> {
    let continued = fs_err::metadata(path).is_ok_and(|file| file.len() > 0);
    fill(client, from, facts, path)?;
    let found = digest::of_file(path, &facts.etag)?;
    let Some(found) = found.filter(|found| !found.eq_ignore_ascii_case(&facts.etag)) else {
        return Ok(());
    };
    fs_err::remove_file(path)?;
    if continued {
        say(format!("the part of {} that was there is damaged; fetching it anew", from.file));
        return receive(client, from, facts, path);
    }
    Err(Failure::Differs { file: from.file.to_owned(), found, expected: facts.etag.clone() })
}

/// Appends what is missing, in as many answers as it takes. Tries that bring nothing are counted.
fn fill(client: &Client, from: RepoFile, facts: &FileFacts, path: &Path) -> Result<(), Failure> {
    let mut file = fs_err::OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let mut progress = Progress::new(
        "download",
        facts.size.unwrap_or(0) / MEGABYTE,
        file.metadata()?.len() / MEGABYTE,
        facts.size.is_none_or(|size| size >= MEGABYTE),
    );
    let (mut longest, mut fruitless) = (0, 0);
    loop {
        let start = file.metadata()?.len();
        match facts.size {
            Some(size) if start == size && (size > 0 || fruitless > 0) => break,
            Some(size) if start > size => {
                file.set_len(0)?;
                continue;
            }
            _ => {}
        }
        let problem = match client.bytes(from.id, from.commit, from.file, start) {
            Ok(answer) => {
                if !begins_at(&answer, start) {
                    file.set_len(0)?;
                    file.seek(SeekFrom::Start(0))?;
                }
                append(answer, &mut file, client.settings.timeout, &mut |bytes| {
                    progress.update(bytes / MEGABYTE, || format!("MB of {}", from.file));
                })?
            }
            // The part that is there does not belong to this file.
            Err(Failure::Unexpected(problem)) if start > 0 && problem.starts_with("416") => {
                file.set_len(0)?;
                Some(problem)
            }
            Err(failure) => return Err(failure),
        };
        let length = file.metadata()?.len();
        match (problem, facts.size) {
            (None, None) => break,
            (None, Some(size)) if length == size => break,
            (problem, size) => {
                fruitless = if length > longest { 0 } else { fruitless + 1 };
                longest = longest.max(length);
                let of = size.map(|size| format!(" of {size}")).unwrap_or_default();
                let problem = problem.unwrap_or_else(|| "the answer ended".to_owned());
                let problem = format!("{length}{of} bytes, then {problem}");
                if fruitless >= client.settings.tries {
                    return Err(Failure::Cut { file: from.file.to_owned(), problem });
                }
                say(format!("{}: {problem}; going on from there", from.file));
                std::thread::sleep(client.settings.pause);
            }
        }
    }
    progress.finish(&format!("{} is here", from.file));
    Ok(file.sync_all()?)
}

/// Whether an answer's bytes are those from `start` on.
fn begins_at(answer: &Response<Body>, start: u64) -> bool {
    let range = answer.headers().get("content-range").and_then(|range| range.to_str().ok());
    let first =
        range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    start == 0 || answer.status().as_u16() == 206 && first == Some(start)
}

/// Appends the bytes of an answer; returns what broke it off, if anything did.
fn append(
    answer: Response<Body>,
    file: &mut fs_err::File,
    timeout: Duration,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<String>, Failure> {
    let chunks = read_aside(answer);
    let mut length = file.metadata()?.len();
    loop {
        match chunks.recv_timeout(timeout) {
            Ok(Ok(chunk)) if chunk.is_empty() => return Ok(None),
            Ok(Ok(chunk)) => {
                file.write_all(&chunk)?;
                length += chunk.len() as u64;
                progress(length);
            }
            Ok(Err(error)) => return Ok(Some(error.to_string())),
            Err(RecvTimeoutError::Timeout) => {
                return Ok(Some(format!("nothing for {} s", timeout.as_secs())));
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(Some("the reader ended".to_owned())),
        }
    }
}

/// Reads an answer on a thread of its own, so that silence can be noticed; the last chunk is empty.
fn read_aside(answer: Response<Body>) -> Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(4);
    std::thread::spawn(move || {
        let mut reader = answer.into_body().into_reader();
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = reader.read(&mut chunk);
            let last = !matches!(read, Ok(1..));
            let sent = sender.send(read.map(|count| {
                chunk.truncate(count);
                chunk
            }));
            if last || sent.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Waits until no other process fetches the same content. The kernel frees the lock of a process
/// that ends. `None` on a file system without locks.
fn lock(path: &Path, file: &str) -> Result<Option<File>, Failure> {
    make_parent(path)?;
    let lock = fs_err::OpenOptions::new().create(true).append(true).open(path)?.into_parts().0;
    let started = Instant::now();
    let mut say_after = WAIT_SAID_AFTER;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                let path = path.display();
                say(format!("warning: {path} cannot be locked ({error}); fetching without"));
                return Ok(None);
            }
        }
        if started.elapsed() >= say_after {
            say(format!("waiting for another process that fetches {file} ({})", path.display()));
            say_after += WAIT_SAID_EVERY;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
