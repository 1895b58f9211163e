//! Shards in an object store.
//!
//! What is small (manifest, tokenizer, fact index) is copied into a folder of this machine's cache,
//! which stands for the shards from then on. Row groups are fetched when they are read, whole
//! columns at a time, and kept in that folder, as many as fit; ranks of one machine share them.
//! Pages have checksums of their own, so a row group that was damaged on its way is found.
//!
//! Not for: what Parquet files hold (`reader`), or which rows are read when (`sampling`).

use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use serde::{Deserialize, Serialize};

use crate::base::{FileLock, entries, read_json, say, write_whole};
use crate::objects::{Store, is_bucket, open_place};
use crate::{DataError, Error, Result};

/// The file that says where the shards of a folder are.
const LINK: &str = "remote.json";
/// The folder of what was fetched.
const PIECES: &str = "pieces";
/// Shards begin with this; all other files are copied.
const SHARD: &str = "train-";
/// What folders hold besides files in their root.
const TOKENIZER: &str = "tokenizer";
/// The file that is copied last.
const MANIFEST: &str = "manifest.json";
/// Bytes at the end of a shard that are fetched at once: they hold the places of its row groups.
const TAIL: u64 = 256 << 10;
/// How often the lock of another process is asked for.
const PAUSE: Duration = Duration::from_millis(100);

/// Where shards are.
#[derive(Debug, Serialize, Deserialize)]
struct ShardLink {
    url: String,
}

/// The URL of a place in an object store.
pub(super) fn url_of(place: &Path) -> Option<&str> {
    place.to_str().filter(|url| is_bucket(url))
}

/// The folder on this machine of the shards that `place` names: that folder itself or, for the URL
/// of a bucket's prefix, a folder of the cache with everything but the shards. Each call asks the
/// bucket for the manifest, so that shards that were replaced get a folder of their own.
///
/// # Errors
/// A data error if there are no shards at the URL; those of the store and of the disk.
pub(super) fn at_hand(place: &Path) -> Result<PathBuf> {
    let Some(url) = url_of(place) else { return Ok(place.to_owned()) };
    let url = url.trim_end_matches('/');
    copied(url, &*open_place(url)?, &cache_folder()?.join("shards"))
}

/// `DOCRE_CACHE`, or else the folder of this program among the user's caches.
fn cache_folder() -> Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = folder("DOCRE_CACHE").map(PathBuf::from);
    let caches = || folder("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || folder("HOME").map(|home| Path::new(&home).join(".cache"));
    let program = |caches: PathBuf| caches.join("docre-pretrain");
    own.or_else(|| caches().or_else(home).map(program)).ok_or_else(|| {
        Error::recipe("shards in an object store need a cache, and there is no home folder")
            .with_hint("name a folder in the variable DOCRE_CACHE")
    })
}

/// Copies everything but the shards into a folder of `cache`, unless it is there.
fn copied(url: &str, store: &dyn Store, cache: &Path) -> Result<PathBuf> {
    let Some(manifest) = store.read(MANIFEST)? else {
        let hint = "name the prefix that holds a folder that `prepare` or `score` has written";
        return Err(DataError::new(Path::new(url), "no manifest: there are no shards here")
            .hint(hint)
            .into());
    };
    let name = |bytes: &[u8]| blake3::hash(bytes).to_hex().chars().take(16).collect::<String>();
    let name = format!("{}-{}", name(url.as_bytes()), name(&manifest));
    let folder = cache.join(&name);
    if folder.join(MANIFEST).is_file() {
        return Ok(folder);
    }
    fs_err::create_dir_all(cache)?;
    let _lock = locked(&cache.join(format!("{name}.lock")))?;
    if folder.join(MANIFEST).is_file() {
        return Ok(folder);
    }
    say(format!("copying the manifest, tokenizer and fact index of {url}"));
    let work = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(cache)?;
    fs_err::create_dir(work.path().join(TOKENIZER))?;
    fs_err::create_dir(work.path().join(PIECES))?;
    for (inside, file) in ["", TOKENIZER]
        .map(|inside| Ok((inside, store.files(inside)?)))
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flat_map(|(inside, files)| files.into_iter().map(move |file| (inside, file)))
        .filter(|(inside, file)| !(inside.is_empty() && file.starts_with(SHARD)))
    {
        let key = if inside.is_empty() { file } else { format!("{inside}/{file}") };
        store.download(&key, &work.path().join(&key))?;
    }
    let link = serde_json::to_vec(&ShardLink { url: url.to_owned() })
        .map_err(|error| Error::Bug(format!("writing {LINK}: {error}")))?;
    write_whole(&work.path().join(LINK), &link)?;
    write_whole(&work.path().join(MANIFEST), &manifest)?;
    let _ = fs_err::remove_dir_all(&folder);
    fs_err::rename(work.keep(), &folder)?;
    Ok(folder)
}

/// Waits for a lock, and says so.
fn locked(path: &Path) -> Result<FileLock> {
    let mut has_said = false;
    loop {
        if let Ok(lock) = FileLock::take(path)? {
            return Ok(lock);
        }
        if !has_said {
            say(format!("waiting for another process that holds {}", path.display()));
            has_said = true;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The shards of a folder that stands for a place in an object store.
#[derive(Clone, Debug)]
pub(super) struct RemoteShards {
    url: String,
    store: Arc<dyn Store>,
    pieces: PathBuf,
    disk: u64,
    /// Bytes of a tail.
    tail: u64,
}

impl RemoteShards {
    /// `None` for a folder that holds its shards itself. `disk` bounds the bytes that are kept.
    ///
    /// # Errors
    /// As [`open_place`]; a link that cannot be read.
    pub(super) fn of(folder: &Path, disk: u64) -> Result<Option<Self>> {
        let link = folder.join(LINK);
        if !link.is_file() {
            return Ok(None);
        }
        let ShardLink { url } = read_json(&link)?;
        let store = open_place(&url)?.into();
        Ok(Some(Self { url, store, pieces: folder.join(PIECES), disk, tail: TAIL }))
    }

    /// A shard of so many bytes.
    pub(super) fn file(&self, name: &str, bytes: u64) -> RemoteFile {
        RemoteFile { shards: self.clone(), name: name.to_owned(), bytes }
    }
}

/// A shard, read piece by piece.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    shards: RemoteShards,
    name: String,
    bytes: u64,
}

/// Bytes of a shard, and the first of them.
#[derive(Clone, Debug)]
pub(super) struct FilePiece {
    file: RemoteFile,
    start: u64,
    content: Bytes,
}

impl RemoteFile {
    /// What errors call it.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("{}/{}", self.shards.url, self.name))
    }

    /// The end of the file, where Parquet says what it holds.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub(super) fn tail(&self) -> Result<FilePiece> {
        self.kept(self.tail_range())
    }

    fn tail_range(&self) -> Range<u64> {
        self.bytes.saturating_sub(self.shards.tail)..self.bytes
    }

    /// Some bytes: from this machine's disk, or fetched and kept there.
    ///
    /// # Errors
    /// Those of the store and of the disk.
    pub(super) fn piece(&self, range: Range<u64>) -> Result<FilePiece> {
        // A short file is in its tail as a whole.
        self.kept(if range.start >= self.tail_range().start { self.tail_range() } else { range })
    }

    fn kept(&self, range: Range<u64>) -> Result<FilePiece> {
        let RemoteShards { store, pieces, .. } = &self.shards;
        let kept = pieces.join(format!("{}.{}-{}", self.name, range.start, range.end));
        let wanted = range.end - range.start;
        let (start, file) = (range.start, self.clone());
        if let Ok(content) = fs_err::read(&kept)
            && content.len() as u64 == wanted
        {
            // Pieces that were not read for the longest time make room.
            let used = fs_err::File::open(&kept)
                .map(|file| file.into_file().set_modified(SystemTime::now()));
            drop(used);
            return Ok(FilePiece { file, start, content: content.into() });
        }
        let content = store.read_range(&self.name, range)?;
        self.shards.make_room(wanted)?;
        if wanted <= self.shards.disk {
            write_whole(&kept, &content)?;
        }
        Ok(FilePiece { file, start, content: content.into() })
    }
}

impl RemoteShards {
    /// Removes the pieces that were not read for the longest time, until so many bytes have room.
    /// Another rank may do the same; a piece that is gone is fetched again.
    fn make_room(&self, wanted: u64) -> Result<()> {
        let found = entries(&self.pieces)?.into_iter().filter_map(|(name, path)| {
            let kept = fs_err::metadata(&path).ok().filter(|_| name.starts_with(SHARD))?;
            Some((kept.modified().ok()?, kept.len(), path))
        });
        let mut found: Vec<(SystemTime, u64, PathBuf)> = found.collect();
        found.sort();
        let mut taken: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in found {
            if taken + wanted <= self.disk {
                break;
            }
            let _ = fs_err::remove_file(path);
            taken -= bytes;
        }
        Ok(())
    }
}

impl Length for FilePiece {
    fn len(&self) -> u64 {
        self.file.bytes
    }
}

impl ChunkReader for FilePiece {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let skipped =
            start.checked_sub(self.start).and_then(|skipped| usize::try_from(skipped).ok());
        match skipped.filter(|&skipped| skipped <= self.content.len()) {
            Some(skipped) => Ok(Cursor::new(self.content.slice(skipped..))),
            None => {
                let rest = usize::try_from(self.file.bytes.saturating_sub(start)).unwrap_or(0);
                self.get_bytes(start, rest).map(Cursor::new)
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start + length as u64;
        if start >= self.start && end <= self.start + self.content.len() as u64 {
            let from = usize::try_from(start - self.start).unwrap_or(usize::MAX);
            return Ok(self.content.slice(from..from + length));
        }
        if end > self.file.bytes {
            return Err(ParquetError::EOF(format!("bytes {start}..{end} of {}", self.file.bytes)));
        }
        let other = self.file.piece(start..end).map_err(|error| {
            ParquetError::General(format!("{} cannot be read: {error}", self.file.name))
        })?;
        let from = usize::try_from(start - other.start).unwrap_or(usize::MAX);
        Ok(other.content.slice(from..from + length))
    }
}

#[cfg(test)]
#[cfg(feature = "cloud")]
mod tests;
