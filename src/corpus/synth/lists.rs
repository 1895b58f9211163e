//! Lists of words and clauses, which stand in text files beside this one: a heading in brackets on
//! a line of its own, then the items.
//!
//! The order of items counts: an item is drawn by its place in the list.

use std::collections::HashMap;

/// The lists of a text by their headings.
pub(super) struct TextLists(HashMap<&'static str, Vec<&'static str>>);

impl TextLists {
    /// Reads a text whose items stand between characters that `separate` them.
    pub(super) fn new(text: &'static str, separates: fn(char) -> bool) -> Self {
        let lists = text.split('[').filter_map(|list| list.split_once("]\n"));
        let items = |text: &'static str| {
            text.split(separates).filter(|item| !item.is_empty()).collect::<Vec<_>>()
        };
        Self(lists.map(|(heading, text)| (heading, items(text))).collect())
    }

    /// The list under a heading; empty where there is none.
    pub(super) fn of(&self, heading: &str) -> &[&'static str] {
        self.0.get(heading).map(Vec::as_slice).unwrap_or_default()
    }
}
