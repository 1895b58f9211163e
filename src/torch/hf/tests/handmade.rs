//! Archives as `torch.save` writes them, made by hand for tests: good ones, and with any
//! instruction put in.

use std::io::Write;

use zip::write::SimpleFileOptions;

pub fn text(value: &str) -> Vec<u8> {
    [b"X".as_slice(), &(value.len() as u32).to_le_bytes(), value.as_bytes()].concat()
}

fn int(value: i32) -> Vec<u8> {
    [b"J".as_slice(), &value.to_le_bytes()].concat()
}

fn tuple(items: &[i32]) -> Vec<u8> {
    [b"(".to_vec(), items.iter().flat_map(|&item| int(item)).collect(), b"t".to_vec()].concat()
}

/// `_rebuild_tensor_v2` over storage `key`, as torch.save writes it with protocol 2.
pub fn tensor(
    kind: &str,
    key: &str,
    numel: i32,
    offset: i32,
    size: &[i32],
    stride: &[i32],
) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        format!("ctorch\n{kind}\n").into_bytes(),
        text(key),
        text("cpu"),
        int(numel),
        b"tQ".to_vec(),
        int(offset),
        tuple(size),
        tuple(stride),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// A state dictionary with its `_metadata`, entries memorised as torch does.
pub fn state_dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for (name, value) in entries {
        pickle.extend([text(name), b"q\x02".to_vec(), value.clone()].concat());
    }
    pickle.extend(b"u}");
    pickle.extend(text("_metadata"));
    pickle.extend(b"h\x00)Rsb.");
    pickle
}

pub fn archive(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in records {
        zip.start_file(
            format!("model/{name}"),
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
        )
        .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A file as torch.save wrote it before version 1.6, over `state` and its storages: key, number of
/// elements, bytes.
pub fn old_file(state: &[u8], storages: &[(&str, i64, Vec<u8>)]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    file.extend(b"\x80\x02M\xe9\x03.\x80\x02}q\x00(");
    file.extend([text("protocol_version"), b"M\xe9\x03".to_vec()].concat());
    file.extend([text("little_endian"), b"\x88u.".to_vec()].concat());
    // A sixth part of each storage: whether it is a part of another.
    let five = b"tQ";
    let mut rest = state;
    while let Some(at) = rest.windows(2).position(|pair| pair == five) {
        file.extend([&rest[..at], b"NtQ"].concat());
        rest = &rest[at + 2..];
    }
    file.extend(rest);
    file.extend(b"\x80\x02]q\x00(");
    storages.iter().for_each(|(key, ..)| file.extend(text(key)));
    file.extend(b"e.");
    for (_, count, bytes) in storages {
        file.extend([&count.to_le_bytes(), &bytes[..]].concat());
    }
    file
}
