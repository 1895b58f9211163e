//! `survey`: reads files as `prepare` would, writes nothing, and says what they hold.

use std::path::Path;

use super::data::InputFile;
use crate::Result;
use crate::corpus::formats::ReadOptions;
use crate::corpus::{Document, Survey, SurveyReport};
use crate::text::Tokenizer;

/// Surveys files, each as a split of its own. With a tokenizer, lengths are those of the encoder's
/// input: pieces, a marker before and after every mention, and the two that frame it; without,
/// words.
///
/// # Errors
/// Bad documents; a tokenizer that cannot be read.
pub fn survey_files(
    files: &[InputFile],
    read: &ReadOptions,
    tokenizer: Option<&Path>,
    lowercase: bool,
) -> Result<SurveyReport> {
    let mut tokenizer =
        tokenizer.map(|path| Tokenizer::load(path, lowercase.then_some(true))).transpose()?;
    let mut survey = Survey::default();
    for file in files {
        survey.file(&file.path);
        let summary = file.read(read, &mut |document| {
            let length = tokenizer.as_mut().map_or_else(
                || Ok(document.num_words()),
                |tokenizer| input_length(&document, tokenizer),
            )?;
            survey.document(&document, length);
            Ok(())
        })?;
        survey.end_file(&summary);
    }
    Ok(SurveyReport(survey.finish()))
}

fn input_length(document: &Document, tokenizer: &mut Tokenizer) -> Result<usize> {
    let mentions: usize = document.entities.iter().map(|entity| entity.mentions.len()).sum();
    let mut pieces = 2 + 2 * mentions;
    for word in document.sentences.iter().flatten() {
        pieces += tokenizer.tokenize_word(word)?.len();
    }
    Ok(pieces)
}
