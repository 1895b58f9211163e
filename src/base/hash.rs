//! BLAKE3 hashes of files, and hashes as numbers.

use std::path::Path;

use crate::Result;

/// The length of a file and its hash in hexadecimal digits.
///
/// # Errors
/// I/O errors.
pub fn fingerprint(path: &Path) -> Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut fs_err::File::open(path)?, &mut hasher)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

/// The first eight bytes of a hash as a number.
pub fn hash_number(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
