//! The hashes by which the Hub names contents: SHA-256 of large files, and Git's hash of small ones
//! (SHA-1 over the word `blob`, the length and the content).

use std::io::Read;
use std::path::Path;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use crate::Result;

/// The hash of a file in the form of `etag`; `None` where that is no hash.
///
/// # Errors
/// I/O errors.
pub(super) fn of_file(path: &Path, etag: &str) -> Result<Option<String>> {
    let hex = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut file = fs_err::File::open(path)?;
    let mut context = match etag.len() {
        64 if hex => Context::new(&SHA256),
        40 if hex => {
            let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
            context.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
            context
        }
        _ => return Ok(None),
    };
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    let digest = context.finish();
    Ok(Some(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()))
}
