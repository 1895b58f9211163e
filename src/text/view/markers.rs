//! Marker schemes: which pieces stand before and after mentions (docs/systems.md, "Words, pieces
//! and markers").
//!
//! Not for: where words end up once markers are written (`view`).

use std::collections::{BTreeMap, BTreeSet};

use super::choices::ViewChoices;
use crate::text::{SpecialPieces, TokenizedDocument, TokenizedEntity, TokenizedMention};
use crate::{DataError, Result};

/// Which entities get markers, and how these are numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Markers {
    /// Entity e is marked with `[unused(2e+1)]` and `[unused(2e+2)]`, every entity.
    #[default]
    PerEntity,
    /// The entities of this list are marked as in [`Self::PerEntity`], all others not at all.
    PerListed(Vec<u32>),
    /// The i-th entity of this list is marked with `[unused(2i)]` and `[unused(2i+1)]`, all others
    /// not at all. The release's fine-tuner lists the entities by first appearance in the kept
    /// pairs.
    Kept(Vec<u32>),
    /// No markers: a mention's position is the first piece of its first word.
    None,
    /// `*` before and after mentions, once a word however many mentions start (or end) there: ATLOP
    /// on DocRED.
    StarPerWord,
    /// `*` before and after every distinct mention (span and type): ATLOP on CDR and GDA.
    StarPerMention,
    /// `[unused(m+1+e)]` before the mentions of entity e, `[unusedt]` after them, where t from 1 is
    /// the place of the mention's type in this list and m the number of types, at least 6. Where
    /// several mentions start (or end) with one word, the last listed keeps its marker: DocRE-II.
    Typed(Vec<String>),
}

/// Markers as (word, piece) in order of insertion; the last one inserted stands outermost.
type Placed = Vec<(u32, u32)>;

/// Types that the release of DocRE-II counts before its entity markers.
const TYPES: usize = 6;

impl Markers {
    /// Start and end markers of all unmasked mentions, or of those of one entity.
    ///
    /// # Errors
    /// [`crate::Error::Data`] where typed markers run out, or an entity's type is not in their
    /// list.
    pub(super) fn place(
        &self,
        document: &TokenizedDocument,
        symbols: &SpecialPieces,
        choices: &ViewChoices,
        of: Option<usize>,
    ) -> Result<(Placed, Placed)> {
        let entities =
            document.entities.iter().enumerate().filter(|&(e, _)| of.is_none_or(|of| of == e));
        let unmasked = entities.flat_map(|(e, entity)| {
            choices.unmasked(e, &entity.mentions).map(move |mention| (e, entity, mention))
        });
        let own = |(e, _, mention)| (mention, symbols.start_marker(e), symbols.end_marker(e));
        match self {
            Self::PerEntity => Ok(each(unmasked.map(own))),
            Self::PerListed(list) => {
                let is_listed = |e: usize| list.iter().any(|&listed| listed as usize == e);
                Ok(each(unmasked.filter(|&(e, ..)| is_listed(e)).map(own)))
            }
            Self::Kept(order) => {
                // In the order of the list, which decides what stands outermost where mentions of
                // two entities share a word.
                let unmasked: Vec<_> = unmasked.collect();
                let of = |(i, &kept): (usize, &u32)| {
                    let own = unmasked.iter().filter(move |(e, ..)| *e == kept as usize);
                    own.map(move |(_, _, mention)| {
                        (*mention, symbols.numbered(2 * i), symbols.numbered(2 * i + 1))
                    })
                    .collect::<Vec<_>>()
                };
                Ok(each(order.iter().enumerate().flat_map(of)))
            }
            Self::None => Ok((Vec::new(), Vec::new())),
            Self::StarPerWord => Ok(last_of_word(
                unmasked.map(|(_, _, mention)| (mention, symbols.star, symbols.star)),
            )),
            Self::StarPerMention => {
                let distinct: BTreeSet<_> = unmasked
                    .map(|(_, entity, m)| (m.start, m.end, entity.entity_type.as_str()))
                    .collect();
                let star = symbols.star;
                Ok(distinct
                    .into_iter()
                    .map(|(start, end, _)| ((start, star), (end - 1, star)))
                    .unzip())
            }
            Self::Typed(types) => {
                let pieces = |(e, entity, mention): (usize, &TokenizedEntity, _)| {
                    let (start, end) = typed(types, symbols, document, e, entity.type_of(mention))?;
                    Ok((mention, start, end))
                };
                Ok(last_of_word(unmasked.map(pieces).collect::<Result<Vec<_>>>()?.into_iter()))
            }
        }
    }
}

fn each<'d>(mentions: impl Iterator<Item = (&'d TokenizedMention, u32, u32)>) -> (Placed, Placed) {
    mentions.map(|(mention, start, end)| ((mention.start, start), (mention.end - 1, end))).unzip()
}

fn last_of_word<'d>(
    mentions: impl Iterator<Item = (&'d TokenizedMention, u32, u32)>,
) -> (Placed, Placed) {
    let (starts, ends): (BTreeMap<u32, u32>, BTreeMap<u32, u32>) = mentions
        .map(|(mention, start, end)| ((mention.start, start), (mention.end - 1, end)))
        .unzip();
    (starts.into_iter().collect(), ends.into_iter().collect())
}

fn typed(
    types: &[String],
    symbols: &SpecialPieces,
    document: &TokenizedDocument,
    e: usize,
    kind: &str,
) -> Result<(u32, u32)> {
    let fail = |problem: String| {
        DataError::new("shards", problem).title(&document.title).field(format!("entities[{e}]"))
    };
    let number = types.iter().position(|known| known == kind);
    let number = number.ok_or_else(|| {
        fail(format!("no marker is known for the type `{kind}`")).hint("use `*` as marker")
    })?;
    let (start, most) = (types.len().max(TYPES) + 1 + e, symbols.unused.len());
    if start >= most {
        return Err(fail(format!("the vocabulary keeps only {most} pieces for markers"))
            .hint("use `*` as marker")
            .into());
    }
    Ok((symbols.numbered(start), symbols.numbered(number + 1)))
}
