//! Checks of sentencepiece's character maps: the library that walks them trusts their numbers.
//!
//! A map is the length in bytes of a trie, the trie in units of 32 bits, and replacement texts,
//! each closed by NUL. The trie is a double array: from unit `i` with number `u`, byte `c` leads to
//! unit `i ^ offset(u) ^ c`, which belongs to the edge if its label is `c`. Bit 8 of `u` says that
//! unit `i ^ offset(u)` holds a value, the place of a replacement.

use serde_json::Value;

/// Bit of a unit that holds a value; such a unit is no edge.
const VALUE: u32 = 1 << 31;

/// What is wrong with a character map.
pub(super) fn check(map: &[u8]) -> Result<(), String> {
    let (length, rest) = map.split_first_chunk::<4>().ok_or("a character map without a length")?;
    let length = u32::from_le_bytes(*length) as usize;
    if !length.is_multiple_of(4) || length == 0 || length > rest.len() {
        return Err(format!("a character map of {} bytes has a trie of {length}", rest.len()));
    }
    let (trie, texts) = rest.split_at(length);
    let texts = std::str::from_utf8(texts).map_err(|_| "replacements that are not UTF-8")?;
    let units: Vec<u32> = trie.as_chunks().0.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
    // Nobody looks at the kind of the first unit, where every walk begins.
    let edges = units.iter().enumerate().filter(|&(at, unit)| at == 0 || unit & VALUE == 0);
    for (at, &unit) in edges {
        let base = at ^ ((unit >> 10) << ((unit & 512) >> 6)) as usize;
        // All edges from here, whatever the byte.
        if base | 0xff >= units.len() {
            return Err(format!("unit {at} of a character map leads out of its trie"));
        }
        let value = (units[base] & !VALUE) as usize;
        if unit >> 8 & 1 == 1 && !texts.is_char_boundary(value) {
            return Err(format!("unit {at} of a character map leads out of its replacements"));
        }
    }
    Ok(())
}

/// Checks every character map inside a `tokenizer.json`.
pub(super) fn check_json(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(values) => values.iter().try_for_each(check_json),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match value {
            Value::String(text) if key == "precompiled_charsmap" => {
                check(&from_base64(text).ok_or("a character map that is not base64")?)
            }
            value => check_json(value),
        }),
        _ => Ok(()),
    }
}

/// The bytes of text in base64; `None` for other text.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for four in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for &digit in four {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let bits = bits << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}
