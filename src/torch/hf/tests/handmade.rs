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
