//! Files in an object store: Amazon S3 and compatible services, Google Cloud Storage, Azure Blob
//! Storage.
//!
//! Folders are parts of names there. Requests are sent one after another, on a runtime of the
//! store's own that runs while a call waits for it. Not for repeating what takes several calls.

use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::{Path as Name, PathPart};
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig};
use tokio::runtime::{self, Runtime};
use url::Url;

use super::store::{Store, no_place};
use crate::{Error, Result};

/// Most bytes in the body of a request, and so in memory. A file of more than [`MAX_PARTS`] parts
/// is sent in longer ones.
const PART: u64 = 8 << 20;

/// Most parts of an upload, in any of the services.
const MAX_PARTS: u64 = 10_000;

/// Most bytes of a file that is read as a whole: recipes and seals are far smaller.
const MAX_READ: u64 = 64 << 20;

/// What a bucket must grant.
const ALLOWED: &str = "these credentials must allow to list and read there, and a mirror to write \
     and delete";

/// How a request that failed for now is repeated.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    },
    max_retries: 5,
    retry_timeout: Duration::from_secs(20),
};

/// Files under a prefix of a bucket.
#[derive(Debug)]
pub(super) struct Objects {
    url: String,
    service: Service,
    root: Name,
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
    part: u64,
}

/// The service.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Service {
    Amazon,
    Google,
    Azure,
}

/// The store at a URL, with credentials, region and endpoint from the environment. No request is
/// made yet.
///
/// # Errors
/// A recipe error if the URL is not that of a bucket, or holds credentials; one of the store if its
/// settings do not fit together.
pub(super) fn open(url: &str) -> Result<Objects> {
    Objects::open(
        url,
        std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))),
        RETRY,
    )
}

impl Objects {
    fn open(
        url: &str,
        settings: impl Iterator<Item = (String, String)>,
        retry: RetryConfig,
    ) -> Result<Self> {
        let parsed = Url::parse(url).map_err(|error| no_place(url, &format!(": {error}")))?;
        // Not repeated in the message, which may end up in a log.
        if parsed.password().is_some() || parsed.query().is_some() {
            let error = Error::recipe("the URL holds more than the place of a bucket");
            return Err(error.with_hint(
                "credentials belong into the environment; leave out \
                `user:password@` and what follows `?`",
            ));
        }
        let (scheme, root) = ObjectStoreScheme::parse(&parsed)
            .map_err(|error| no_place(url, &format!(": {error}")))?;
        let service = match scheme {
            ObjectStoreScheme::AmazonS3 => Service::Amazon,
            ObjectStoreScheme::GoogleCloudStorage => Service::Google,
            ObjectStoreScheme::MicrosoftAzure => Service::Azure,
            _ => return Err(no_place(url, ": it is not Amazon's, Google's or Azure's")),
        };
        let store = service.build(url, settings, retry).map_err(|error| Error::Remote {
            message: format!("{url} cannot be opened: {}", told(&error)),
            hint: service.variables().to_owned(),
        })?;
        Self::over(url, service, root, store)
    }

    fn over(url: &str, service: Service, root: Name, store: Box<dyn ObjectStore>) -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            service,
            root,
            store,
            runtime,
            part: PART,
        })
    }

    fn place(&self, key: &str) -> Name {
        self.root
            .parts()
            .chain(key.split('/').filter(|part| !part.is_empty()).map(PathPart::from))
            .collect()
    }

    fn failed(&self, key: &str, verb: &str, error: &object_store::Error) -> Error {
        let told = told(error);
        let hint = self.service.hint(error, &told);
        Error::Remote { message: format!("{}/{key} cannot be {verb}: {told}", self.url), hint }
    }

    /// Uploads one part after another; if one fails, the upload is aborted.
    async fn upload_parts(&self, mut file: fs_err::File, part: u64, key: &str) -> Result<()> {
        let failed = |error| self.failed(key, "written", &error);
        let mut upload = self.store.put_multipart(&self.place(key)).await.map_err(failed)?;
        let sent = async {
            loop {
                let bytes = next_part(&mut file, part)?;
                if bytes.is_empty() {
                    return upload.complete().await.map_err(failed);
                }
                upload.put_part(bytes.into()).await.map_err(failed)?;
            }
        };
        let sent = sent.await;
        if sent.is_err() {
            // If this fails as well, the bucket's own rules clean up.
            let _ = upload.abort().await;
        }
        sent.map(drop)
    }

    async fn download_parts(&self, key: &str, mut file: fs_err::File) -> Result<()> {
        let failed = |error| self.failed(key, "read", &error);
        let place = self.place(key);
        let size = self.store.head(&place).await.map_err(failed)?.size;
        let mut at = 0;
        while at < size {
            let end = size.min(at + self.part);
            let bytes = self.store.get_range(&place, at..end).await.map_err(failed)?;
            file.write_all(&bytes)?;
            at = end;
        }
        Ok(file.sync_all()?)
    }

    async fn read_whole(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let failed = |error| self.failed(key, "read", &error);
        let found = match self.store.get(&self.place(key)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(failed)?,
        };
        if found.meta.size > MAX_READ {
            let message = format!(
                "{}/{key} has {} bytes, more than any small file",
                self.url, found.meta.size
            );
            return Err(Error::Remote { message, hint: "name another place".into() });
        }
        Ok(Some(found.bytes().await.map_err(failed)?.into()))
    }

    async fn read_part(&self, key: &str, range: Range<u64>) -> object_store::Result<Vec<u8>> {
        let place = self.place(key);
        let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + self.part);
            let part = self.store.get_range(&place, at..end).await?;
            if part.is_empty() {
                break;
            }
            at += part.len() as u64;
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    /// Names directly below a folder: (folders, files).
    fn names(&self, key: &str) -> Result<(Vec<String>, Vec<String>)> {
        let folder = self.place(key);
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&folder)));
        let listed = listed.map_err(|error| self.failed(key, "listed", &error))?;
        // Some services list a marker of the folder itself, which has no name below it.
        let below = |name: &Name| Some(name.prefix_match(&folder)?.next()?.as_ref().to_owned());
        Ok((
            listed.common_prefixes.iter().filter_map(below).collect(),
            listed.objects.iter().filter_map(|file| below(&file.location)).collect(),
        ))
    }
}

impl Store for Objects {
    fn upload(&self, from: &Path, key: &str) -> Result<()> {
        let mut file = fs_err::File::open(from)?;
        let length = file.metadata()?.len();
        if length <= self.part {
            return self.write(key, &next_part(&mut file, length)?);
        }
        self.runtime.block_on(self.upload_parts(
            file,
            self.part.max(length.div_ceil(MAX_PARTS)),
            key,
        ))
    }

    fn download(&self, key: &str, to: &Path) -> Result<()> {
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let outcome = self.runtime.block_on(self.download_parts(key, fs_err::File::create(&part)?));
        if outcome.is_err() {
            let _ = fs_err::remove_file(&part);
            return outcome;
        }
        Ok(fs_err::rename(&part, to)?)
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.runtime.block_on(self.read_whole(key))
    }

    fn read_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let wanted = range.end - range.start;
        let read = self.runtime.block_on(self.read_part(key, range));
        let bytes = read.map_err(|error| self.failed(key, "read", &error))?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        let message = format!("{}/{key}: {} of {wanted} bytes came", self.url, bytes.len());
        Err(Error::Remote { message, hint: "the file was replaced by a shorter one".into() })
    }

    fn write(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let written =
            self.runtime.block_on(self.store.put(&self.place(key), bytes.to_vec().into()));
        written.map(drop).map_err(|error| self.failed(key, "written", &error))
    }

    fn folders(&self, key: &str) -> Result<Vec<String>> {
        Ok(self.names(key)?.0)
    }

    fn files(&self, key: &str) -> Result<Vec<String>> {
        Ok(self.names(key)?.1)
    }

    fn remove(&self, key: &str) -> Result<()> {
        match self.runtime.block_on(self.store.delete(&self.place(key))) {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            outcome => outcome.map_err(|error| self.failed(key, "removed", &error)),
        }
    }
}

impl Service {
    fn build(
        self,
        url: &str,
        settings: impl Iterator<Item = (String, String)>,
        retry: RetryConfig,
    ) -> object_store::Result<Box<dyn ObjectStore>> {
        // Fails only if there is a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(match self {
            Self::Amazon => {
                // Every compatible service can delete file by file.
                let plain = AmazonS3Builder::new()
                    .with_url(url)
                    .with_retry(retry)
                    .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
                Box::new(
                    known("AWS_", settings)
                        .fold(plain, |builder, (key, value)| builder.with_config(key, value))
                        .build()?,
                )
            }
            Self::Google => {
                let plain = GoogleCloudStorageBuilder::new().with_url(url).with_retry(retry);
                let known = known::<GoogleConfigKey>("GOOGLE_", settings);
                Box::new(
                    known
                        .fold(plain, |builder, (key, value)| builder.with_config(key, value))
                        .build()?,
                )
            }
            Self::Azure => {
                let plain = MicrosoftAzureBuilder::new().with_url(url).with_retry(retry);
                let known = known::<AzureConfigKey>("AZURE_", settings);
                Box::new(
                    known
                        .fold(plain, |builder, (key, value)| builder.with_config(key, value))
                        .build()?,
                )
            }
        })
    }

    /// The variables that credentials and addresses are read from.
    fn variables(self) -> &'static str {
        match self {
            Self::Amazon => {
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for services other than \
                 Amazon's, AWS_ENDPOINT_URL say how to get there"
            }
            Self::Google => {
                "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT (files) say how to get \
                 there"
            }
            Self::Azure => {
                "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY say how to get there"
            }
        }
    }

    fn hint(self, error: &object_store::Error, told: &str) -> String {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        let advice = match error {
            NotFound { .. } => "the bucket must exist, in the region that is set",
            PermissionDenied { .. } | Unauthenticated { .. } => ALLOWED,
            // Listings are refused with an error of no kind.
            _ if told.contains("403 Forbidden") => ALLOWED,
            _ => "look at the connection, the credentials, the region and the name of the bucket",
        };
        format!("{advice}; {}", self.variables())
    }
}

/// Settings of a service among environment variables; unknown ones are ignored.
fn known<K: FromStr>(
    start: &str,
    settings: impl Iterator<Item = (String, String)>,
) -> impl Iterator<Item = (K, String)> {
    settings
        .filter(move |(key, _)| key.starts_with(start))
        .filter_map(|(key, value)| Some((key.to_ascii_lowercase().parse().ok()?, value)))
}

fn next_part(file: &mut fs_err::File, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An error with those of its causes that its message does not contain, on one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let text = deeper.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = deeper.source();
    }
    let line: String = told.split_whitespace().collect::<Vec<_>>().join(" ");
    // A service may answer with a whole page.
    line.chars().take(1_000).collect()
}

#[cfg(test)]
#[path = "cloud_tests.rs"]
pub(crate) mod tests;
