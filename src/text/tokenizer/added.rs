//! Pieces that are added to a vocabulary, and how a file is refused that is not what its name says.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use tokenizers::AddedToken;

use crate::{DataError, Error, Result};

/// A file that is not what its name says, in the words of the library that reads it.
pub(super) fn broken(path: &Path, problem: &dyn Display, hint: &str) -> Error {
    DataError::new(path, problem.to_string()).hint(hint).into()
}

/// Adds pieces that are looked for in the text before it is split, in the order of their numbers.
pub(super) fn add_pieces(
    tokenizer: &mut tokenizers::Tokenizer,
    pieces: impl IntoIterator<Item = (u32, AddedToken)>,
    path: &Path,
) -> Result<()> {
    let pieces: BTreeMap<u32, AddedToken> = pieces.into_iter().collect();
    for (number, piece) in pieces {
        tokenizer.add_tokens(std::slice::from_ref(&piece));
        let got = tokenizer.token_to_id(&piece.content);
        if got != Some(number) {
            let got = got.map_or("none".to_owned(), |got| got.to_string());
            let problem = format!(
                "the added piece `{}` has number {number} in the file, but gets number {got} here",
                piece.content
            );
            return Err(DataError::new(path, problem)
                .hint("the numbers of added pieces follow those of the vocabulary")
                .into());
        }
    }
    Ok(())
}
