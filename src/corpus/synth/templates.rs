//! How the world puts a relation into words (`clauses.txt`). `{h}` is the head, `{t}` the tail,
//! `{e}` an epithet; the full stop is added later.
//!
//! A clause that opens with `{h} ` can be joined with another one about the same head, or open with
//! a reference ("the company"). An epithet is a role that an early sentence gives to a person or a
//! company, and a late one uses instead of the name.

use std::sync::LazyLock;

use super::{
    lists::TextLists,
    schema::{Kind, Rel},
};

static CLAUSES: LazyLock<TextLists> =
    LazyLock::new(|| TextLists::new(include_str!("clauses.txt"), |letter| letter == '\n'));

/// The clauses of a relation.
pub(super) fn clauses(rel: Rel) -> &'static [&'static str] {
    CLAUSES.of(rel.name())
}

/// The epithets that a thing of this kind may get.
pub(super) fn epithets(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Person => CLAUSES.of("epithets of persons"),
        Kind::Company => CLAUSES.of("epithets of companies"),
        _ => &[],
    }
}

/// How an early sentence gives an epithet.
pub(super) fn epithet_clauses() -> &'static [&'static str] {
    CLAUSES.of("an epithet")
}
