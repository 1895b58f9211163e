//! One visit of the model to a document: its pieces with markers, blanked entities and masked
//! mentions (docs/systems.md, "Words, pieces and markers").
//!
//! A view is a pure function of the document, the options and the choices drawn for this visit; the
//! document is never changed. Follows DSDocRE (docs/systems.md, C.1, D.1 and D.12). Not for:
//! drawing the choices (`sampling`), batching (`pack`), tensors.
//!
//! Where mentions overlap, the result does not depend on any order of work: first the words of all
//! blanked and masked mentions are emptied, then the first word of every blanked mention becomes
//! the blank symbol, then that of every masked mention the masked symbol. The release works in turn
//! instead ([`ViewOptions::in_turn`]).

mod choices;

use std::collections::{BTreeMap, BTreeSet};

use super::{SpecialPieces, TokenizedDocument, TokenizedEntity, TokenizedMention};
use crate::{DataError, Error, Result};
pub use choices::ViewChoices;

/// How documents are laid out; the same for all visits of a stage (except for the lists of
/// [`Markers::Kept`] and [`Markers::PerListed`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewOptions {
    /// Most pieces of a view, with `[CLS]` and `[SEP]`; `None` for no limit.
    pub max_pieces: Option<usize>,
    /// Whether a longer document is cut (it still ends with `[SEP]`); otherwise it is an error.
    pub truncate: bool,
    /// Appends `[PAD]` pieces up to this length. The release attends to its padding in stages 1 and
    /// 2; nothing else needs it.
    pub pad_to: Option<usize>,
    /// The first so many mentions in range stand for an entity; `None` for all of them.
    pub max_mentions: Option<usize>,
    /// The marker scheme.
    pub markers: Markers,
    /// Writes the masked symbol once for every row that names the mention, as the release does,
    /// instead of once a mention.
    pub repeat_masked: bool,
    /// Masks mentions, then goes through the entities, blanks each and marks it, as the release
    /// does in pre-training: where mentions overlap what comes later wipes out what was written
    /// before, markers included. A masked mention is read at the start of its word, where another
    /// mention's marker may stand, instead of at its symbol.
    pub in_turn: bool,
}

/// The pieces of one visit and the places the model reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// `[CLS]`, pieces with markers, `[SEP]`, and `[PAD]` where the options ask for it; what stands
    /// around the pieces is the tokeniser's ([`SpecialPieces::prefix`], [`SpecialPieces::suffix`]).
    pub ids: Vec<u32>,
    /// Positions of each entity's mentions in range, masked ones left out; `[0]` (the `[CLS]`, if
    /// it stands in front) for an entity without any. `[entities][1..]`
    pub mention_positions: Vec<Vec<u32>>,
    /// First and last position of each entity's mentions in range, their markers included, masked
    /// ones left out; the last position of a mention that is cut is that of `[SEP]`. An entity may
    /// have none. `[entities][..]`
    pub mention_spans: Vec<Vec<(u32, u32)>>,
    /// Position of the first piece of each sentence, its markers included, closed by the position
    /// after the last piece of the document. Sentences behind the limit are empty. [sentences + 1]
    pub sentence_starts: Vec<u32>,
    /// Position of the masked symbol of each row of [`ViewChoices::masked`]; `None` beyond the
    /// limit.
    pub masked_positions: Vec<Option<u32>>,
    /// Number of pieces the whole document would have had, with `[CLS]` and `[SEP]`, without
    /// padding.
    pub pieces_before_truncation: usize,
}

/// Lays out one visit.
///
/// A mention is in range when the position of its first word is below the limit; as in the release
/// this includes the first position after the pieces of a cut document, where its `[SEP]` is.
///
/// # Errors
/// [`Error::Data`] when the document is longer than the limit and may not be cut, or when a mention
/// lies outside its words; [`Error::Bug`] when the choices name a mention that is not there.
pub fn view(
    document: &TokenizedDocument,
    symbols: &SpecialPieces,
    options: &ViewOptions,
    choices: &ViewChoices,
) -> Result<View> {
    check_mentions(document)?;
    check_choices(document, choices)?;
    let mut placement = Placement::new(document);
    if options.in_turn {
        placement.mask(choices, symbols.masked_mention(), options.repeat_masked);
        placement.blank_and_mark_in_turn(choices, symbols, &options.markers)?;
    } else {
        placement.blank(choices, symbols.blank());
        placement.mask(choices, symbols.masked_mention(), options.repeat_masked);
        (placement.starts, placement.ends) =
            options.markers.place(document, symbols, choices, None)?;
    }
    let WrittenPieces { mut ids, word_positions, word_ends, symbol_positions } =
        placement.write(&symbols.prefix);
    let written = ids.len();
    let pieces_before_truncation = written + symbols.suffix.len();
    close(&mut ids, document, symbols, options)?;
    let last = options
        .max_pieces
        .map_or(written, |limit| written.min(limit.saturating_sub(symbols.suffix.len())))
        as u32;
    let start = |&word: &u32| word_positions.get(word as usize).map_or(last, |&at| at.min(last));
    let sentence_starts = document.sentence_starts.iter().map(start).collect();
    let limit = mention_limit(symbols, options);
    let masked_positions = choices.masked.iter().map(|&(entity, mention)| {
        let word = document.entities[entity as usize].mentions[mention as usize].start;
        let positions = if options.in_turn { &word_positions } else { &symbol_positions };
        Some(positions[word as usize]).filter(|&at| (at as usize) < limit)
    });
    let masked_positions = masked_positions.collect();
    let (starts, ends) = (&word_positions, &word_ends);
    let mention_spans = mention_spans(document, choices, options, limit, (starts, ends));
    let mention_positions = mention_spans.iter().map(|spans| first_positions(spans)).collect();
    Ok(View {
        ids,
        mention_positions,
        mention_spans,
        sentence_starts,
        masked_positions,
        pieces_before_truncation,
    })
}

/// The position that a mention in range lies below.
fn mention_limit(symbols: &SpecialPieces, options: &ViewOptions) -> usize {
    let behind = symbols.suffix.len().saturating_sub(1);
    options.max_pieces.map_or(usize::MAX, |limit| limit.saturating_sub(behind))
}

/// Cuts if need be, ends with `[SEP]`, pads if asked to.
fn close(
    ids: &mut Vec<u32>,
    document: &TokenizedDocument,
    symbols: &SpecialPieces,
    options: &ViewOptions,
) -> Result<()> {
    let (whole, suffix) = (ids.len() + symbols.suffix.len(), symbols.suffix.len());
    if let Some(limit) = options.max_pieces
        && whole > limit
    {
        if !options.truncate || limit < suffix.max(1) {
            return Err(too_long(document, whole, limit));
        }
        ids.truncate(limit - suffix);
    }
    ids.extend_from_slice(&symbols.suffix);
    if let Some(length) = options.pad_to {
        ids.resize(ids.len().max(length), symbols.pad);
    }
    Ok(())
}

fn too_long(document: &TokenizedDocument, pieces: usize, limit: usize) -> Error {
    DataError::new(
        "shards",
        format!("{pieces} word pieces with markers, but the encoder takes {limit}"),
    )
    .title(&document.title)
    .hint(
        "allow truncation (`predict --truncate`, encoder.truncate in a recipe), or take an encoder \
         with more positions",
    )
    .into()
}

fn check_mentions(document: &TokenizedDocument) -> Result<()> {
    let words = document.num_words();
    for (e, entity) in document.entities.iter().enumerate() {
        for (m, mention) in entity.mentions.iter().enumerate() {
            if mention.start >= mention.end || mention.end as usize > words {
                let problem = format!(
                    "span {}..{} is not inside the {words} words",
                    mention.start, mention.end
                );
                let field = format!("entities[{e}].mentions[{m}]");
                return Err(DataError::new("shards", problem)
                    .title(&document.title)
                    .field(field)
                    .into());
            }
        }
    }
    Ok(())
}

fn check_choices(document: &TokenizedDocument, choices: &ViewChoices) -> Result<()> {
    for &(entity, mention) in &choices.masked {
        if document
            .entities
            .get(entity as usize)
            .is_none_or(|e| mention as usize >= e.mentions.len())
        {
            let title = &document.title;
            return Err(Error::Bug(format!(
                "mention {mention} of entity {entity} of `{title}` was masked, but is not there"
            )));
        }
    }
    Ok(())
}

/// Spans of the unmasked mentions of every entity, see [`View::mention_spans`].
fn mention_spans(
    document: &TokenizedDocument,
    choices: &ViewChoices,
    options: &ViewOptions,
    limit: usize,
    (starts, ends): (&[u32], &[u32]),
) -> Vec<Vec<(u32, u32)>> {
    let of_entity = |(e, entity): (usize, &super::TokenizedEntity)| {
        let spans = choices
            .unmasked(e, &entity.mentions)
            .map(|mention| (starts[mention.start as usize], ends[mention.end as usize - 1]));
        let in_range = spans.filter(|&(first, _)| (first as usize) < limit);
        // A word without pieces and markers ends where it starts.
        let closed = in_range.map(|(first, end)| {
            (first, end.saturating_sub(1).max(first).min(limit.saturating_sub(1) as u32))
        });
        closed.take(options.max_mentions.unwrap_or(usize::MAX)).collect()
    };
    document.entities.iter().enumerate().map(of_entity).collect()
}

/// See [`View::mention_positions`].
fn first_positions(spans: &[(u32, u32)]) -> Vec<u32> {
    if spans.is_empty() { vec![0] } else { spans.iter().map(|&(first, _)| first).collect() }
}

/// What is written for each word.
struct Placement<'d> {
    document: &'d TokenizedDocument,
    /// Words whose own pieces are left out. `[words]`
    emptied: Vec<bool>,
    /// The symbol written in place of a word, and how often. `[words]`
    symbols: Vec<Option<(u32, usize)>>,
    /// Start markers as (word, piece) in order of insertion; the last one inserted stands
    /// outermost.
    starts: Vec<(u32, u32)>,
    /// End markers, likewise.
    ends: Vec<(u32, u32)>,
}

/// The pieces before truncation, without `[SEP]`.
struct WrittenPieces {
    ids: Vec<u32>,
    /// Position of each word's first piece, its markers included. `[words]`
    word_positions: Vec<u32>,
    /// Position after each word's last piece, its markers included. `[words]`
    word_ends: Vec<u32>,
    /// Position of each word's symbol; meaningless for a word without one. `[words]`
    symbol_positions: Vec<u32>,
}

impl<'d> Placement<'d> {
    fn new(document: &'d TokenizedDocument) -> Self {
        let words = document.num_words();
        Self {
            document,
            emptied: vec![false; words],
            symbols: vec![None; words],
            starts: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn empty(&mut self, start: u32, end: u32) {
        self.emptied[start as usize..end as usize].fill(true);
    }

    /// Masked mentions of a blanked entity are left to [`Self::mask`].
    fn blank(&mut self, choices: &ViewChoices, symbol: u32) {
        let document = self.document;
        for (e, entity) in
            document.entities.iter().enumerate().filter(|&(e, _)| choices.is_blanked(e))
        {
            for mention in choices.unmasked(e, &entity.mentions) {
                self.empty(mention.start, mention.end);
                self.symbols[mention.start as usize] = Some((symbol, 1));
            }
        }
    }

    /// See [`ViewOptions::in_turn`].
    fn blank_and_mark_in_turn(
        &mut self,
        choices: &ViewChoices,
        symbols: &SpecialPieces,
        markers: &Markers,
    ) -> Result<()> {
        let document = self.document;
        for (e, entity) in document.entities.iter().enumerate() {
            for mention in choices.unmasked(e, &entity.mentions).filter(|_| choices.is_blanked(e)) {
                self.empty(mention.start, mention.end);
                self.symbols[mention.start as usize..mention.end as usize].fill(None);
                self.symbols[mention.start as usize] = Some((symbols.blank(), 1));
                let outside =
                    |marker: &(u32, u32)| !(mention.start..mention.end).contains(&marker.0);
                self.starts.retain(outside);
                self.ends.retain(outside);
            }
            let (starts, ends) = markers.place(document, symbols, choices, Some(e))?;
            self.starts.extend(starts);
            self.ends.extend(ends);
        }
        Ok(())
    }

    fn mask(&mut self, choices: &ViewChoices, symbol: u32, repeat: bool) {
        let document = self.document;
        for &(entity, mention) in &choices.masked {
            let mention = &document.entities[entity as usize].mentions[mention as usize];
            self.empty(mention.start, mention.end);
            let slot = &mut self.symbols[mention.start as usize];
            let before = slot
                .filter(|&(piece, _)| repeat && piece == symbol)
                .map_or(0, |(_, copies)| copies);
            *slot = Some((symbol, before + 1));
        }
    }

    fn write(mut self, prefix: &[u32]) -> WrittenPieces {
        self.starts.reverse();
        self.starts.sort_by_key(|&(word, _)| word);
        self.ends.sort_by_key(|&(word, _)| word);
        let (words, document) = (self.emptied.len(), self.document);
        let mut ids = Vec::with_capacity(document.pieces.len() + self.starts.len() * 2 + 4);
        ids.extend_from_slice(prefix);
        let (mut word_positions, mut word_ends, mut symbol_positions) =
            (Vec::with_capacity(words), Vec::with_capacity(words), vec![0; words]);
        let (mut starts, mut ends) = (self.starts.iter().peekable(), self.ends.iter().peekable());
        for (word, symbol_position) in symbol_positions.iter_mut().enumerate() {
            word_positions.push(ids.len() as u32);
            while let Some(&(_, piece)) = starts.next_if(|marker| marker.0 as usize == word) {
                ids.push(piece);
            }
            if let Some((symbol, copies)) = self.symbols[word] {
                *symbol_position = ids.len() as u32;
                ids.extend(std::iter::repeat_n(symbol, copies));
            } else if !self.emptied[word] {
                ids.extend_from_slice(
                    &document.pieces[document.word_starts[word] as usize
                        ..document.word_starts[word + 1] as usize],
                );
            }
            while let Some(&(_, piece)) = ends.next_if(|marker| marker.0 as usize == word) {
                ids.push(piece);
            }
            word_ends.push(ids.len() as u32);
        }
        WrittenPieces { ids, word_positions, word_ends, symbol_positions }
    }
}

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
    fn place(
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

#[cfg(test)]
mod tests;
