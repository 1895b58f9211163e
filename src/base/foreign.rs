//! What a file is that is not what its name says: told by its first bytes, with the way out.

use std::io::Read;
use std::path::Path;

use crate::DataError;

/// Bytes that are looked at.
pub const START: usize = 512;

/// A kind of file that people often have in place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What it is, as the end of a sentence that begins with "is".
    pub what: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// Kinds that their first bytes betray. Zip archives and gzip come last: some formats are such.
const BY_START: [(&[u8], Foreign); 15] = [
    (
        b"version https://git-lfs.github.com/spec/",
        Foreign {
            what: "a Git LFS pointer, not the file itself",
            hint: "run `git lfs pull` in its folder",
        },
    ),
    (
        &[0x89, b'H', b'D', b'F'],
        Foreign { what: "an HDF5 file", hint: "TensorFlow writes such; PyTorch weights are read" },
    ),
    (
        b"PAR1",
        Foreign {
            what: "a Parquet file",
            hint: "convert it first: docre-pretrain convert --format parquet --to docred",
        },
    ),
    (b"%PDF", Foreign { what: "a PDF document", hint: "its text must be extracted first" }),
    (&[0xFF, 0xFE], UTF_16),
    (&[0xFE, 0xFF], UTF_16),
    (&[0x1F, 0x8B], Foreign { what: "packed by gzip", hint: "unpack it: gunzip" }),
    (&[0x28, 0xB5, 0x2F, 0xFD], Foreign { what: "packed by zstd", hint: "unpack it: unzstd" }),
    (b"BZh", Foreign { what: "packed by bzip2", hint: "unpack it: bunzip2" }),
    (b"PK\x03\x04", Foreign { what: "a zip archive", hint: "unpack it: unzip" }),
    (b"\xFD7zXZ\0", Foreign { what: "packed by xz", hint: "unpack it: unxz" }),
    (b"7z\xBC\xAF\x27\x1C", Foreign { what: "a 7z archive", hint: "unpack it: 7z x" }),
    (b"ARROW1", Foreign { what: "an Arrow file", hint: "write the table as Parquet" }),
    (b"\x80\x04\x95", Foreign { what: "a pickle of Python", hint: "write it as JSON" }),
    (b"<?xml", Foreign { what: "an XML file", hint: "convert it to one of the formats first" }),
];

const UTF_16: Foreign = Foreign { what: "text in UTF-16", hint: "save it as UTF-8" };

/// Recognises what begins with `start`.
pub fn recognise(start: &[u8]) -> Option<Foreign> {
    if let Some((_, foreign)) = BY_START.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(*foreign);
    }
    let text = String::from_utf8_lossy(start).trim_start().to_lowercase();
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        return Some(Foreign {
            what: "a web page",
            hint: "the download gave a page instead of the file: open it in a browser",
        });
    }
    // ASCII in UTF-16 without a mark: every other byte is zero.
    let pairs = start.chunks_exact(2);
    let (count, zeros) =
        (pairs.len(), pairs.filter(|pair| (pair[0] == 0) != (pair[1] == 0)).count());
    (count >= 8 && zeros * 10 > count * 9).then_some(UTF_16)
}

/// The first bytes of a file; empty where they cannot be read.
pub fn first_bytes(path: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    if let Ok(file) = fs_err::File::open(path) {
        let _ = file.take(START as u64).read_to_end(&mut start);
    }
    start
}

/// An error about a file that cannot be read as meant: what the file is, where its first bytes
/// tell, and `otherwise` where they do not.
pub fn explain(path: &Path, otherwise: DataError) -> DataError {
    match recognise(&first_bytes(path)) {
        Some(foreign) => DataError::new(path, format!("is {}", foreign.what)).hint(foreign.hint),
        None => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_something_else_are_named() {
        let wide: Vec<u8> =
            "[{\"title\": \"a\"}]".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (start, what) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "Git LFS"),
            (b"\n <!DOCTYPE html><html>", "a web page"),
            (b"<HTML>", "a web page"),
            (b"\xFF\xFE[\0", "UTF-16"),
            (&wide, "UTF-16"),
            (b"PK\x03\x04...", "zip archive"),
            (b"\x1F\x8B\x08", "gzip"),
            (b"\x89HDF\r\n", "HDF5"),
            (b"PAR1", "Parquet"),
            (b"<?xml version=\"1.0\"?>", "XML"),
            (b"\xFD7zXZ\0\0", "xz"),
        ] {
            let found = recognise(start).unwrap();
            assert!(found.what.contains(what), "{found:?}");
        }
        for start in [
            &b"[{\"title\": 1}]"[..],
            b"",
            b"{",
            b"the 0.1 0.2",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert_eq!(recognise(start), None, "{start:?}");
        }
    }
}
