//! Plain text: a file is a document, a folder is all of its `.txt` files, and a file of JSON lines
//! is what the format `jsonl` reads.
//!
//! Only for annotating: such documents have no mentions before.

use std::path::{Path, PathBuf};

use super::format::DocumentFormat;
use super::jsonl::Jsonl;
use super::reading::{ReadOptions, ReadSummary, read_files};
use super::running::RunningText;
use crate::base::text_file;
use crate::corpus::Document;
use crate::corpus::check::{Check, OtherRows, PLAIN_FIELDS, Repeats, Unchecked};
use crate::corpus::place::DocumentPlace;
use crate::{DataError, Result};

/// Bytes of the largest text.
const MOST_BYTES: u64 = 1 << 26;

/// Plain text.
#[derive(Debug)]
pub struct PlainText;

impl DocumentFormat for PlainText {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[("text", "Running text: a .txt file a document, a folder of them, or .jsonl with `text`")]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        if plain_name(path).ends_with(".jsonl") {
            return Jsonl.read(path, options, each);
        }
        let parse = |path: &Path, row| read_document(path, row, options);
        read_files(&texts(path)?, options, &parse, each)
    }
}

/// The name of a file in lower case, without `.gz`.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.strip_suffix(".gz").map_or(name.clone(), str::to_owned)
}

/// The texts that a path stands for, by name.
pub(super) fn texts(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut texts = Vec::new();
    for entry in fs_err::read_dir(path)? {
        let file = entry?.path();
        let name = plain_name(&file);
        if name.ends_with(".txt") && !file.is_dir() {
            texts.push(file);
        }
    }
    texts.sort();
    if texts.is_empty() {
        return Err(DataError::new(path, "the folder holds no .txt file")
            .hint("the texts of a folder are called NAME.txt; folders in it are not looked into")
            .into());
    }
    Ok(texts)
}

/// A file name without its ending.
pub(super) fn title_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = plain_name(path);
    let length = plain.strip_suffix(".txt").unwrap_or(&plain).len();
    // Lower case may be of another length outside of ASCII.
    name.get(..length).unwrap_or(&name).to_owned()
}

/// A whole file of text.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let is_large = |bytes: u64| bytes > MOST_BYTES;
    let on_disk = fs_err::metadata(path)?.len();
    let bytes = if is_large(on_disk) { Vec::new() } else { text_file::read_whole(path)? };
    if is_large(on_disk.max(bytes.len() as u64)) {
        return Err(DataError::new(path, "a text larger than 64 MiB is no document")
            .hint("write one document a file, or JSON lines with a `text` each")
            .into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        DataError::new(path, format!("not valid UTF-8 from byte {byte}"))
            .hint("save the file as UTF-8")
            .into()
    })
}

fn read_document(path: &Path, row: usize, options: &ReadOptions) -> Result<(Document, OtherRows)> {
    let title = title_of(path);
    let text = RunningText { text: read_text(path)?.chars().collect(), ..RunningText::default() };
    let cut = text.cut(DocumentPlace { file: path, row, title: &title }, options)?;
    let (found, passed_over) = (cut.found.clone(), cut.passed_over());
    let unchecked = Unchecked {
        title,
        sentences: cut.sentences,
        entities: cut.entities,
        ..Unchecked::default()
    };
    let (fields, repeats, relations) = (&PLAIN_FIELDS, Repeats::Merge, None);
    let (document, others) =
        Check { file: path, row, relations, fields, repeats }.document(unchecked)?;
    Ok((document, OtherRows { found, passed_over, ..others }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        PlainText.read(path, &ReadOptions::default(), &mut |document| {
            documents.push(document);
            Ok(())
        })?;
        Ok(documents)
    }

    #[test]
    fn a_folder_is_its_texts_by_name_and_blank_lines_end_sentences() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let hint = read(folder.path()).unwrap_err().hint().unwrap().to_owned();
        assert!(hint.contains("NAME.txt"), "{hint}");
        fs_err::write(path("b.txt"), "A title\r\n\r\nIts text\r\ngoes on. And on.").unwrap();
        fs_err::write(path("a.v2.TXT"), "\u{feff}Ünit.").unwrap();
        fs_err::write(path("c.md"), "no").unwrap();
        fs_err::create_dir(path("d.txt")).unwrap();
        let documents = read(folder.path()).unwrap();
        let titles: Vec<&str> = documents.iter().map(|it| it.title.as_str()).collect();
        assert_eq!(titles, ["a.v2", "b"]);
        let sentences: Vec<String> = documents[1].sentences.iter().map(|it| it.join(" ")).collect();
        assert_eq!(sentences, ["A title", "Its text goes on .", "And on ."]);
        assert_eq!((&documents[1].facts, documents[1].entities.len()), (&None, 0));
        fs_err::write(path("x.txt"), b"a\xff").unwrap();
        let error = read(&path("x.txt")).unwrap_err();
        assert!(error.to_string().contains("x.txt: not valid UTF-8 from byte 1"), "{error}");
        fs_err::write(path("t.txt"), "สมชายอยู่").unwrap();
        let error = read(&path("t.txt")).unwrap_err();
        assert!(error.to_string().contains("document `t`, field `text`: `ส` is Thai"), "{error}");
    }
}
