use serde_json::{Value, json};

use super::*;

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
    assert_eq!(count, values.len());
    Ok(values)
}

#[track_caller]
fn complains(text: &[u8], part: &str) {
    let error = read(text).unwrap_err();
    assert_eq!(error.exit_code(), 65, "{error}");
    assert!(error.to_string().contains(part), "{error}");
    assert!(error.hint().is_some(), "{error}");
}

/// Elements with brackets and commas in strings, escapes, and all kinds of white space come out as a whole parser reads them.
#[test]
fn elements_are_those_of_a_whole_parser() {
    let tricky = json!([{"a": "]},[", "b": [1, [2, "\\\""]]}, "x\\", [], {}, null, 1.5, "é\u{1F600}", {"deep": [[[{"k": ","}]]]}]);
    for text in [tricky.to_string(), format!(" \r\n{tricky:#}\t\n")] {
        assert_eq!(Value::Array(read(text.as_bytes()).unwrap()), tricky);
    }
    assert!(read(b" [ \n ] ").unwrap().is_empty());
}

/// Many blocks, and elements that lie across the buffers of the reader.
#[test]
fn order_and_borders_survive_the_threads() {
    let values: Vec<Value> = (0..3_000).map(|row| json!({"row": row, "text": "long ".repeat(row % 700)})).collect();
    assert_eq!(read(Value::from(values.clone()).to_string().as_bytes()).unwrap(), values);
}

#[test]
fn places_count_over_the_whole_file() {
    let text = format!("[{}\n  {{\"a\": 1}},\n  {{\"a\": nil}}]", "{\"b\": \"x\"},".repeat(20_000));
    complains(text.as_bytes(), "row 20001, field `a`: not valid JSON: expected ident at line 3 column 10");
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
    complains(format!("[{}{}]", "[".repeat(500_000), "]".repeat(500_000)).as_bytes(), "recursion limit");
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
    let refuse = |row: usize, value: u32| if value == 2 { Err(Error::recipe(format!("no {row}"))) } else { Ok(value) };
    let error = read_array_with(&path, &refuse, &mut |_, _| {
        seen += 1;
        Ok(())
    });
    assert_eq!((error.unwrap_err().to_string().as_str(), seen), ("no 1", 1));
}
