//! An all-gather of unequal lengths, made of all-gathers of equal ones.
//!
//! Not for sending: the communicators hand over how they gather equal pieces.

use crate::Result;

/// Most bytes that a rank receives in one piece.
const MAX_GATHER: usize = 1 << 26;

/// Returns the bytes of all `size` ranks, by rank. `gather` takes pieces of equal lengths and
/// returns them joined, [size × piece.len()]; it is called equally often on all ranks.
///
/// # Errors
/// Those of `gather`.
pub(super) fn gather_unequal(
    bytes: &[u8],
    size: usize,
    gather: impl Fn(&[u8]) -> Result<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    let lengths = gather(&(bytes.len() as u64).to_ne_bytes())?;
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
