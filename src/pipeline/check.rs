//! `survey`: reads files as `prepare` would, writes nothing, and says what they hold. Documents
//! that cannot be read do not end it: they are listed.

use std::path::Path;

use super::data::InputFile;
use crate::Result;
use crate::base::say;
use crate::corpus::formats::{OnError, ReadOptions};
use crate::corpus::{Document, Survey, SurveyReport};
use crate::shards::PieceCount;
use crate::text::Tokenizer;

/// Surveys files, each as a split of its own. With a tokenizer, lengths are those of the encoder's
/// input: pieces, a marker before and after every mention, and the two that frame it; without,
/// words.
///
/// # Errors
/// A file that cannot be read to its end; a tokenizer that cannot be read.
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
        let summary = file.read(&read, &mut |document| {
            let length = tokenizer.as_mut().map_or_else(
                || Ok(document.num_words()),
                |tokenizer| input_length(&document, tokenizer, &mut pieces),
            )?;
            survey.document(&document, length);
            Ok(())
        })?;
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
