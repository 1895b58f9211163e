//! `survey`: reads files as `prepare` would, writes nothing, and says what they hold. Documents
//! that cannot be read do not end it: they are listed.

use std::path::Path;

use super::prepare_job::InputFile;
use crate::base::say;
use crate::corpus::formats::{LeftOut, OnError, ReadOptions, ReadSummary};
use crate::corpus::{Document, Survey, SurveyReport};
use crate::shards::PieceCount;
use crate::text::Tokenizer;
use crate::{Error, Result};

/// What is left out if a file cannot be read to its end.
pub const WHOLE_FILE: &str = "file";

/// Surveys files, each as a split of its own. With a tokenizer, lengths are those of the encoder's
/// input: pieces, a marker before and after every mention, and the two that frame it; without,
/// words.
///
/// # Errors
/// A file or a tokenizer that is missing. What cannot be read is in the report.
pub fn survey_files(
    files: &[InputFile],
    read: &ReadOptions,
    tokenizer: Option<&Path>,
    lowercase: Option<bool>,
) -> Result<SurveyReport> {
    let mut tokenizer = tokenizer.map(|path| Tokenizer::load(path, lowercase)).transpose()?;
    if let Some(tokenizer) = &tokenizer {
        tokenizer.warnings().iter().for_each(|warning| say(format!("warning: {warning}")));
    }
    let read = ReadOptions { on_error: OnError::Skip, ..read.clone() };
    let mut pieces = PieceCount::default();
    let mut survey = Survey::default();
    for file in files {
        survey.file(&file.path);
        let read = file.read(&read, &mut |document| {
            let length = tokenizer.as_mut().map_or_else(
                || Ok(document.num_words()),
                |tokenizer| input_length(&document, tokenizer, &mut pieces),
            )?;
            survey.document(&document, length);
            Ok(())
        });
        // The other files are read all the same.
        let summary = match read {
            Err(Error::Data(error)) => {
                let left_out = vec![LeftOut { what: WHOLE_FILE, error: *error }];
                ReadSummary { left_out, ..ReadSummary::default() }
            }
            read => read?,
        };
        survey.end_file(summary);
    }
    if let Some(warning) = pieces.warning() {
        say(format!("warning: {warning}"));
    }
    Ok(SurveyReport(survey.finish()))
}

/// Pieces of the encoder's input; those of words are added to `count`.
fn input_length(
    document: &Document,
    tokenizer: &mut Tokenizer,
    count: &mut PieceCount,
) -> Result<usize> {
    let mentions: usize = document.entities.iter().map(|entity| entity.mentions.len()).sum();
    let unknown = tokenizer.special().unk;
    let before = count.all;
    for word in document.sentences.iter().flatten() {
        count.add(tokenizer.tokenize_word(word)?, unknown);
    }
    Ok(2 + 2 * mentions + count.all - before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Format;

    #[test]
    fn every_file_is_surveyed_and_every_fault_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let good = |title: &str| format!(r#"{{"title": "{title}", "sents": [], "vertexSet": []}}"#);
        fs_err::write(path("a.json"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
        let mixed = format!(r#"[{{"title": "x"}}, {}, {{"title": "z"}}]"#, good("y"));
        fs_err::write(path("b.json"), mixed).unwrap();
        fs_err::write(path("c.json"), good("w")).unwrap();
        let files = ["a.json", "b.json", "c.json"].map(path);
        let files = InputFile::all(&files, Format::DOCRED);
        let report = survey_files(&files, &ReadOptions::default(), None, None).unwrap();
        let found: Vec<_> =
            report.0.iter().map(|file| (file.documents, file.left_out.len())).collect();
        assert_eq!(found, [(0, 1), (1, 2), (1, 0)]);
        assert_eq!(report.0[0].left_out[0].what, WHOLE_FILE);
        assert!(report.to_string().contains("a.json: cannot be read"), "{report}");
        let missing = [InputFile::docred(path("d.json"))];
        let error = survey_files(&missing, &ReadOptions::default(), None, None).unwrap_err();
        assert_eq!(error.exit_code(), 74);
    }
}
