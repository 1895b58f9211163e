//! A small writer of TensorBoard event files: scalars in TFRecord framing. Not for: reading them,
//! or anything but scalars.
//!
//! A record is length (u64, little endian), masked CRC-32C of the length, the bytes, masked CRC-32C
//! of the bytes. The bytes are the protocol buffer `Event {1: wall_time double, 2: step int64, 3:
//! file_version string, 5: summary}`, where `Summary {1: Value}` and `Value {1: tag string, 2:
//! simple_value float}`.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Result;

/// Appends scalars to one event file.
#[derive(Debug)]
pub struct EventWriter {
    file: fs_err::File,
}

impl EventWriter {
    /// Creates `events.out.tfevents.<seconds>.<suffix>` in `folder`. A resumed run opens a new
    /// file; TensorBoard reads all of them.
    ///
    /// # Errors
    /// I/O errors.
    pub fn create(folder: &Path, suffix: &str) -> Result<Self> {
        let now = wall_time();
        let file = fs_err::File::create(
            folder.join(format!("events.out.tfevents.{:010}.{suffix}", now as u64)),
        )?;
        let mut writer = Self { file };
        writer.write(&version_event(now))?;
        Ok(writer)
    }

    /// Adds a point to each of several curves, in one record.
    ///
    /// # Errors
    /// I/O errors.
    pub fn scalars(&mut self, step: u64, values: &[(String, f32)]) -> Result<()> {
        self.write(&scalars_event(wall_time(), step, values))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&record(event))?;
        Ok(())
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), event, &masked_crc(event).to_le_bytes()]
        .concat()
}

fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = fixed64(1, wall_time);
    event.extend(bytes_field(3, b"brain.Event:2"));
    event
}

fn scalars_event(wall_time: f64, step: u64, values: &[(String, f32)]) -> Vec<u8> {
    let value = |(tag, number): &(String, f32)| {
        let mut value = bytes_field(1, tag.as_bytes());
        value.push(key(2, 5));
        value.extend(number.to_le_bytes());
        bytes_field(1, &value)
    };
    let mut event = fixed64(1, wall_time);
    event.push(key(2, 0));
    event.extend(varint(step));
    event.extend(bytes_field(5, &values.iter().flat_map(value).collect::<Vec<u8>>()));
    event
}

/// Key of a field: number and wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four
/// bytes).
fn key(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

fn fixed64(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![key(field, 1)];
    out.extend(value.to_le_bytes());
    out
}

fn bytes_field(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![key(field, 2)];
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// The masked checksum of TFRecord files, which keeps checksums of data that itself holds checksums
/// apart.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected, bit by bit: a few hundred bytes a second need no table.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_has_its_published_check_values() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn event_decoded_by_hand() {
        let expected = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f][..], // 1: wall_time 1.5
            &[0x10, 0xac, 0x02],                       // 2: step 300
            &[0x2a, 0x0d, 0x0a, 0x0b], // 5: summary of 13 bytes, 1: value of 11 bytes
            &[0x0a, 0x04, b'l', b'o', b's', b's'], // 1: tag
            &[0x15, 0, 0, 0x20, 0x40], // 2: simple_value 2.5
        ];
        let loss = ("loss".to_owned(), 2.5);
        assert_eq!(scalars_event(1.5, 300, std::slice::from_ref(&loss)), expected.concat());
        // Two values stand one after the other in one summary.
        let two = scalars_event(1.5, 300, &[loss.clone(), loss]);
        let value = &expected.concat()[14..];
        assert_eq!(two[12..], [&[0x2a, 0x1a][..], value, value].concat());
    }

    #[test]
    fn file_of_framed_records() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), "host").unwrap();
        writer.scalars(1, &[("loss/total".to_owned(), 0.5)]).unwrap();
        drop(writer);
        let entry = fs_err::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert!(entry.file_name().to_string_lossy().starts_with("events.out.tfevents."));
        let bytes = fs_err::read(entry.path()).unwrap();
        // The first record is the version event of 24 bytes, whose length has the checksum that
        // every event file starts with.
        assert_eq!(bytes[..12], GOLDEN_START);
        assert_eq!(&bytes[12 + 9 + 2..12 + 24], b"brain.Event:2");
        let second = &bytes[12 + 24 + 4..];
        let length = u64::from_le_bytes(second[..8].try_into().unwrap()) as usize;
        assert_eq!(second.len(), 12 + length + 4);
    }

    /// Length 24 and its masked checksum, computed with an independent implementation.
    const GOLDEN_START: [u8; 12] = [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22];
}
