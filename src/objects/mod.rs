//! Places of files outside this machine's own folders, named by URLs: a folder, or a prefix in a
//! bucket of an object store.
//!
//! Not for: what lies there (`train::mirror` keeps checkpoints, `shards::remote` reads shards).

#[cfg(feature = "cloud")]
mod cloud;
mod folder;
mod store;

pub use store::Store;

use self::folder::FolderStore;
use self::store::no_place;
use crate::Result;

#[cfg(test)]
#[cfg(feature = "cloud")]
pub(crate) use cloud::tests as cloud_tests;

/// Schemes of URLs of object stores.
const OBJECT_STORES: [&str; 9] =
    ["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "https"];

/// The place that a URL names: `file:///folder/…` or, with the feature `cloud`, `s3://bucket/…`,
/// `gs://bucket/…`, `az://container/…`. No request is made yet.
///
/// # Errors
/// A recipe error if this build knows no such place; the store's own, if its settings do not fit
/// together.
pub fn open_place(url: &str) -> Result<Box<dyn Store>> {
    if let Some(path) = url.strip_prefix("file://").filter(|path| path.starts_with('/')) {
        return Ok(Box::new(FolderStore::open(path)));
    }
    if is_bucket(url) {
        return open_bucket(url);
    }
    Err(no_place(url, ""))
}

/// Whether a URL is that of an object store.
pub fn is_bucket(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| OBJECT_STORES.contains(&scheme))
}

#[cfg(feature = "cloud")]
fn open_bucket(url: &str) -> Result<Box<dyn Store>> {
    Ok(Box::new(cloud::open(url)?))
}

#[cfg(not(feature = "cloud"))]
fn open_bucket(url: &str) -> Result<Box<dyn Store>> {
    let message = format!("{url} is in an object store, which this build cannot reach");
    Err(crate::Error::recipe(message)
        .with_hint("build it with `cargo build --release --locked --features cloud`"))
}
