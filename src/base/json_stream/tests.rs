use crate::base::text_file::{first_byte, read_whole};
use serde_json::{Value, json};

use super::*;
use crate::Error;

fn read(text: &[u8]) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("array.json");
    fs_err::write(&path, text).unwrap();
    let mut values = Vec::new();
    let count = read_array(&path, &mut |row, value: Value| {
        assert_eq!(row, values.len());
        values.push(value);
        Ok(())
    })?;
    assert_eq!(count.rows, values.len());
    Ok(values)
}

#[track_caller]
fn complains(text: &[u8], part: &str) {
    let error = read(text).unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    assert!(error.to_string().contains(part), "{error}");
    assert!(error.hint().is_some(), "{error}");
}

/// Elements with brackets and commas in strings, escapes, and all kinds of white space come out as
/// a whole parser reads them.
#[test]
fn elements_are_those_of_a_whole_parser() {
    let tricky = json!([
        {"a": "]},[", "b": [1, [2, "\\\""]]}, "x\\", [], {}, null, 1.5, "é\u{1F600}",
        {"deep": [[[{"k": ","}]]]},
    ]);
    for text in [tricky.to_string(), format!(" \r\n{tricky:#}\t\n")] {
        assert_eq!(Value::Array(read(text.as_bytes()).unwrap()), tricky);
    }
    assert!(read(b" [ \n ] ").unwrap().is_empty());
}

/// Many blocks, and elements that lie across the buffers of the reader.
#[test]
fn order_and_borders_survive_the_threads() {
    let values: Vec<Value> =
        (0..3_000).map(|row| json!({"row": row, "text": "long ".repeat(row % 700)})).collect();
    assert_eq!(read(Value::from(values.clone()).to_string().as_bytes()).unwrap(), values);
}

#[test]
fn places_count_over_the_whole_file() {
    let text = format!("[{}\n  {{\"a\": 1}},\n  {{\"a\": nil}}]", "{\"b\": \"x\"},".repeat(20_000));
    complains(
        text.as_bytes(),
        "row 20001, field `a`: not valid JSON: expected ident at line 3 column 10",
    );
    complains(b"[1, 2, x]", "row 2: not valid JSON: expected value at line 1 column 8");
    complains(b"\n\n [1]\n  ]", "row 1: not valid JSON: trailing characters at line 4 column 3");
}

#[test]
fn broken_arrays_are_refused() {
    complains(b"[1,]", "row 1: not valid JSON: expected a value at line 1 column 4");
    complains(b"[,1]", "row 0: not valid JSON: expected a value at line 1 column 2");
    complains(b"[1 2]", "row 0: not valid JSON: trailing characters");
    complains(b"[1}]", "row 0: not valid JSON: trailing characters");
    complains(b"[{\"a\": ]}, 2]", "row 0, field `a`: not valid JSON: expected value");
    complains(b"[\"a\nb\"]", "control character");
    complains(b"[\"\xff\"]", "invalid unicode");
    complains(b"[1, 2", "row 1: the JSON ends too early: the array is not closed");
    complains(b"[1,", "row 1: the JSON ends too early");
    complains(b"[{\"title\": \"A\", \"b\": [1", "row 0, document `A`");
    complains("[".repeat(1_000_000).as_bytes(), "recursion limit");
    complains(
        format!("[{}{}]", "[".repeat(500_000), "]".repeat(500_000)).as_bytes(),
        "recursion limit",
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// It is no part of the text, so that columns count from behind it; inside a string it is a letter
/// like others.
#[test]
fn a_byte_order_mark_is_passed_over() {
    complains(
        b"\xef\xbb\xbf [\"\xef\xbb\xbfa\", x]",
        "row 1: not valid JSON: expected value at line 1 column 11",
    );
    assert_eq!(read(b"\xef\xbb\xbf[\"\xef\xbb\xbfa\"]").unwrap(), [json!("\u{feff}a")]);
    let folder = tempfile::tempdir().unwrap();
    let marked = b"\xef\xbb\xbf[1]";
    for (name, bytes) in [("a.json", marked.to_vec()), ("a.json.gz", gzip(marked))] {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        assert_eq!(
            (first_byte(&path).unwrap(), read_whole(&path).unwrap()),
            (Some(b'['), b"[1]".to_vec()),
            "{name}"
        );
    }
    let path = folder.path().join("short");
    for bytes in [&b""[..], b"\xef", b"\xef\xbb", b"[]"] {
        fs_err::write(&path, bytes).unwrap();
        assert_eq!(read_whole(&path).unwrap(), bytes);
    }
    let mut values: Vec<Value> = Vec::new();
    let mut take = |_, value| {
        values.push(value);
        Ok(())
    };
    read_array_from(&path, &marked[..], &mut take).unwrap();
    assert_eq!(values, [json!(1)]);
}

/// A file is gzip by its first bytes, whatever it is called. One that is cut in its head or its end
/// is the user's to mend and no failure of the disk.
#[test]
fn gzip_is_read_under_any_name_and_named_where_it_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.json.gz");
    let refused = |outcome: Result<()>| {
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), 65, "{error}");
        assert!(
            error.to_string().contains("x.json.gz")
                && error.hint().is_some_and(|hint| hint.contains("damaged")),
            "{error}"
        );
    };
    let whole = gzip(b"[1, 2]");
    for name in ["x.json", "x.json.gz", "x"] {
        for bytes in [&b"[1, 2]"[..], &whole] {
            let path = folder.path().join(name);
            fs_err::write(&path, bytes).unwrap();
            assert_eq!(read_whole(&path).unwrap(), b"[1, 2]", "{name}");
            assert_eq!(read_array(&path, &mut |_, _: u32| Ok(())).unwrap().rows, 2, "{name}");
        }
    }
    for bytes in [&whole[..8], &whole[..whole.len() - 4]] {
        fs_err::write(&path, bytes).unwrap();
        refused(read_whole(&path).map(drop));
        refused(read_array(&path, &mut |_, _: u32| Ok(())).map(drop));
    }
    fs_err::write(&path, &whole[..8]).unwrap();
    refused(first_byte(&path).map(drop));
}

/// What is no text is named by what it is, also inside of gzip.
#[test]
fn foreign_files_are_named() {
    let page = b"<!DOCTYPE html><html><body>Not Found</body></html>";
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    let wide: Vec<u8> = "[{\"a\": 1}]".encode_utf16().flat_map(u16::to_be_bytes).collect();
    for (bytes, what) in [
        (page.to_vec(), "is a web page"),
        (gzip(page), "is a web page"),
        (pointer.to_vec(), "is a Git LFS pointer"),
        (wide, "is text in UTF-16"),
        (b"PK\x03\x04\0\0".to_vec(), "is a zip archive"),
        (gzip(&gzip(b"[]")), "is packed by gzip"),
    ] {
        complains(&bytes, what);
    }
}

/// Objects one a line, over several lines, or one: each is an element.
#[test]
fn objects_without_an_array_are_elements() {
    let (one, two) = (json!({"a": "}\n{", "b": [1]}), json!({"a": null}));
    for text in [
        format!("{one}\n{two}"),
        format!("\n {one} \r\n\n{two}\n\n"),
        format!("{one:#}\n{two:#}\n"),
        format!("\u{feff}{one}\n{two}\n"),
    ] {
        assert_eq!(read(text.as_bytes()).unwrap(), [one.clone(), two.clone()], "{text}");
    }
    assert_eq!(read(format!("{one:#}").as_bytes()).unwrap(), std::slice::from_ref(&one));
    let many: Vec<Value> =
        (0..3_000).map(|row| json!({"row": row, "text": "long ".repeat(row % 700)})).collect();
    let text: String = many.iter().map(|value| format!("{value}\n")).collect();
    assert_eq!(read(text.as_bytes()).unwrap(), many);
    complains(format!("{one}\n{{\"a\": \"x\n{two}\n").as_bytes(), "row 1");
    complains(format!("{one}\n{{\"a\": x}}\n{two}\n").as_bytes(), "at line 2 column 7");
    complains(b"{\"title\": \"A\", \"b\": [1", "row 0, document `A`");
    complains(b"{\"a\": 1}, {\"a\": 2}", "trailing characters");
}

#[test]
fn an_object_that_holds_the_list_is_named_with_its_keys() {
    #[derive(Debug, serde::Deserialize)]
    struct Titled {
        #[allow(dead_code)]
        title: String,
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrapped.json");
    for text in ["{\"data\": [{\"title\": \"a\"}]}", "{\n \"data\": {\"train\": []}\n}"] {
        fs_err::write(&path, text).unwrap();
        let error = read_array(&path, &mut |_, _: Titled| Ok(())).unwrap_err();
        assert!(error.to_string().contains("an object with the key `data`"), "{error}");
        assert!(error.hint().unwrap().contains("jq"), "{error}");
    }
    fs_err::write(&path, "{\"name\": \"a\"}").unwrap();
    let error = read_array(&path, &mut |_, _: Titled| Ok(())).unwrap_err();
    assert!(error.to_string().contains("missing field `title`"), "{error}");
}

#[test]
fn an_endless_element_is_refused_before_memory_is() {
    let mut text = vec![b'x'; (1 << 26) + 10];
    text[..2].copy_from_slice(b"[\"");
    complains(&text, "larger than 64 MiB");
}

#[test]
fn an_earlier_row_is_reported_first() {
    let mut seen = 0;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("array.json");
    fs_err::write(&path, b"[1, 2, 3, x").unwrap();
    let refuse = |row: usize, value: u32| {
        if value == 2 { Err(Error::recipe(format!("no {row}"))) } else { Ok(value) }
    };
    let error = read_array_with(&path, &refuse, &mut |_, value| {
        value?;
        seen += 1;
        Ok(())
    });
    assert_eq!((error.unwrap_err().to_string().as_str(), seen), ("no 1", 1));
}
