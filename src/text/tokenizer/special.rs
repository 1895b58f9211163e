//! The pieces with a meaning of their own: `[CLS]`, `[SEP]`, `[PAD]`, `[UNK]` and DSDocRE's
//! `[unusedK]` (docs/systems.md, "Words, pieces and markers").

use std::path::Path;

use tokenizers::AddedToken;

use crate::{DataError, Error, Result};

/// The `[unusedK]` that stands for a masked mention in DSDocRE's release.
const MASKED_MENTION: usize = 200;

/// Numbers of the special pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialPieces {
    /// `[CLS]` (RoBERTa: `<s>`), the first piece of a view.
    pub cls: u32,
    /// `[SEP]` (RoBERTa: `</s>`), the last piece of a view.
    pub sep: u32,
    /// `[PAD]`.
    pub pad: u32,
    /// `[UNK]`.
    pub unk: u32,
    /// How many ends close a window that does not end its document: RoBERTa 2, others 1.
    pub window_ends: usize,
    /// `*`, a marker; the last reserved piece where the vocabulary has none.
    pub star: u32,
    /// `[unused0]`, `[unused1]`, …; always more than the masked mention's.
    pub unused: Vec<u32>,
}

impl SpecialPieces {
    /// Appends the `[unusedK]` that are missing and finds all numbers.
    pub(super) fn reserve(
        tokenizer: &mut tokenizers::Tokenizer,
        reserved: usize,
        path: &Path,
    ) -> Result<Self> {
        if reserved <= MASKED_MENTION {
            return Err(Error::recipe(format!("{reserved} reserved pieces are too few"))
                .with_hint(format!(
                    "reserve at least {}: the masked mention is [unused{MASKED_MENTION}]",
                    MASKED_MENTION + 1
                )));
        }
        let names: Vec<String> = (0..reserved).map(|number| format!("[unused{number}]")).collect();
        let missing = names.iter().filter(|name| tokenizer.token_to_id(name).is_none());
        let missing: Vec<AddedToken> =
            missing.map(|name| AddedToken::from(name.as_str(), true)).collect();
        tokenizer.add_special_tokens(&missing);
        let roberta =
            tokenizer.token_to_id("[CLS]").is_none() && tokenizer.token_to_id("<s>").is_some();
        let find = |name: &str| {
            let hint = "the vocabulary needs [PAD], [UNK], [CLS] and [SEP], or RoBERTa's <pad>, \
                <unk>, <s> and </s>";
            let missing = || {
                Error::from(
                    DataError::new(path, format!("no piece `{name}` in the vocabulary")).hint(hint),
                )
            };
            tokenizer.token_to_id(name).ok_or_else(missing)
        };
        let [cls, sep, pad, unk] = if roberta {
            ["<s>", "</s>", "<pad>", "<unk>"]
        } else {
            ["[CLS]", "[SEP]", "[PAD]", "[UNK]"]
        };
        let unused = names.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
        let star = tokenizer.token_to_id("*").unwrap_or(unused[reserved - 1]);
        let window_ends = if roberta { 2 } else { 1 };
        Ok(Self {
            star,
            window_ends,
            cls: find(cls)?,
            sep: find(sep)?,
            pad: find(pad)?,
            unk: find(unk)?,
            unused,
        })
    }

    /// What closes a window that does not end its document.
    pub fn window_end(&self) -> Vec<u32> {
        vec![self.sep; self.window_ends]
    }

    /// The piece of a blanked entity, `[unused0]`.
    pub fn blank(&self) -> u32 {
        self.unused[0]
    }

    /// The piece of a masked mention, `[unused200]`.
    pub fn masked_mention(&self) -> u32 {
        self.unused[MASKED_MENTION]
    }

    /// The marker before a mention of entity `entity` (0-based): `[unused(2e+1)]`, one further from
    /// where `[unused200]` is met.
    ///
    /// Entities beyond [`num_marked`](Self::num_marked) share the markers of entity `e mod
    /// num_marked`.
    pub fn start_marker(&self, entity: usize) -> u32 {
        self.marker(2 * (entity % self.num_marked()))
    }

    /// The marker after a mention of entity `entity`: `[unused(2e+2)]`, one further from where
    /// `[unused200]` is met; wraps around like [`start_marker`](Self::start_marker).
    pub fn end_marker(&self, entity: usize) -> u32 {
        self.marker(2 * (entity % self.num_marked()) + 1)
    }

    /// `[unusedk]`; numbers beyond the reserved ones begin again at 0.
    pub fn numbered(&self, k: usize) -> u32 {
        self.unused[k % self.unused.len()]
    }

    /// Number of entities with markers of their own.
    pub fn num_marked(&self) -> usize {
        (self.unused.len() - 2) / 2
    }

    /// The marker at `position` among all pieces but the blank and the masked mention.
    fn marker(&self, position: usize) -> u32 {
        let number = position + 1;
        self.unused[if number < MASKED_MENTION { number } else { number + 1 }]
    }
}
