//! Gathering unequal lengths, made of gatherings of equal ones.
//!
//! Not for sending: the communicators hand over how they gather equal pieces.

use crate::Result;

/// Most bytes that a rank receives in one piece.
const MAX_GATHER: usize = 1 << 26;

/// Returns the bytes of all `size` ranks, by rank, where `gather` gives them. Both `gather_all`
/// and `gather` take pieces of equal lengths and return them joined, [size × piece.len()], the
/// first on all ranks; they are called equally often on all ranks.
///
/// # Errors
/// Those of `gather_all` and `gather`.
pub(super) fn gather_unequal(
    bytes: &[u8],
    size: usize,
    gather_all: impl Fn(&[u8]) -> Result<Vec<u8>>,
    gather: impl Fn(&[u8]) -> Result<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    let lengths = gather_all(&(bytes.len() as u64).to_ne_bytes())?;
    let (lengths, _) = lengths.as_chunks::<8>();
    let lengths: Vec<usize> =
        lengths.iter().map(|length| u64::from_ne_bytes(*length) as usize).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut all: Vec<Vec<u8>> = lengths.iter().map(|&length| Vec::with_capacity(length)).collect();
    let most = (MAX_GATHER / size).max(1);
    for start in (0..longest).step_by(most) {
        let width = most.min(longest - start);
        let mut piece: Vec<u8> = bytes.iter().skip(start).take(width).copied().collect();
        piece.resize(width, 0);
        let gathered = gather(&piece)?;
        for (whole, (part, &length)) in all.iter_mut().zip(gathered.chunks(width).zip(&lengths)) {
            whole.extend_from_slice(&part[..width.min(length.saturating_sub(start))]);
        }
    }
    Ok(all)
}
