//! What a user should know of the encoder that a new model is built on. The stages of a run build
//! several models on one encoder, so each line is printed once.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::base::{lock, say};
use crate::encoders::EncoderFacts;
use crate::recipe::EncoderChoice;

/// Lines that this process has printed.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Prints notes on how an encoder was loaded, and a warning where the tokenizer of its folder asks
/// for shorter documents (`stated`).
pub(super) fn tell(choice: &EncoderChoice, facts: &EncoderFacts, stated: Option<usize>) {
    let notes = facts.notes.iter().map(|note| format!("note: encoder {}: {note}", choice.name));
    for line in notes.chain(length_warning(choice, facts.max_positions, stated)) {
        if lock(&SAID).insert(line.clone()) {
            say(line);
        }
    }
}

/// The warning, unless the user has chosen a length.
fn length_warning(
    choice: &EncoderChoice,
    positions: Option<usize>,
    stated: Option<usize>,
) -> Option<String> {
    let stated = stated?;
    if choice.max_pieces.is_some() || positions.is_some_and(|most| most <= stated) {
        return None;
    }
    let reads = positions.map_or("any number of".to_owned(), |most| format!("up to {most}"));
    Some(format!(
        "warning: encoder {}: model_max_length in tokenizer_config.json is {stated}, but the \
         encoder reads {reads} pieces in one go; set encoder.max_pieces to {stated} to keep to the \
         tokenizer's number, or to another number to go without this warning",
        choice.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_the_tokenizer_states_is_told_where_it_is_shorter_and_nothing_is_chosen() {
        let choice = |max_pieces| EncoderChoice {
            name: "folder".into(),
            max_pieces,
            ..EncoderChoice::default()
        };
        let of = |asked, positions, stated| length_warning(&choice(asked), positions, stated);
        let told = of(None, Some(512), Some(128)).unwrap();
        for part in [
            "encoder folder:",
            "tokenizer_config.json is 128",
            "up to 512 pieces",
            "max_pieces to 128",
        ] {
            assert!(told.contains(part), "{told}");
        }
        let any = of(None, None, Some(512)).unwrap();
        assert!(any.contains("any number of pieces") && any.contains("max_pieces to 512"), "{any}");
        for (asked, positions, stated) in [
            (None, Some(512), Some(512)),
            (None, Some(512), Some(600)),
            (None, Some(512), None),
            (None, None, None),
            (Some(128), Some(512), Some(128)),
            (Some(300), Some(512), Some(128)),
            (Some(300), None, Some(128)),
        ] {
            assert_eq!(of(asked, positions, stated), None, "{asked:?} {positions:?} {stated:?}");
        }
    }
}
