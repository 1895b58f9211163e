//! The pieces with a meaning of their own: `[CLS]`, `[SEP]`, `[PAD]`, `[UNK]` and DSDocRE's
//! `[unusedK]` (docs/systems.md, "Words, pieces and markers"), and how they frame a sequence.

use std::path::Path;

use tokenizers::tokenizer::{Encoding, PostProcessor as _, Token};
use tokenizers::{AddedToken, ModelWrapper};

use super::names::PieceNames;
use crate::base::catch_panic;
use crate::{DataError, Error, Result};

/// The `[unusedK]` that stands for a masked mention in DSDocRE's release.
const MASKED_MENTION: usize = 200;
/// Stands for the text while a frame is looked at; no piece has this number.
const TEXT: u32 = u32::MAX;

/// Numbers of the special pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialPieces {
    /// `[CLS]` (RoBERTa: `<s>`).
    pub cls: u32,
    /// `[SEP]` (RoBERTa: `</s>`).
    pub sep: u32,
    /// `[PAD]`.
    pub pad: u32,
    /// `[UNK]`.
    pub unk: u32,
    /// What stands before a text: `[CLS]`; nothing for XLNet.
    pub prefix: Vec<u32>,
    /// What stands after a text: `[SEP]`; `<sep> <cls>` for XLNet.
    pub suffix: Vec<u32>,
    /// What closes a window that does not end its document: the suffix; for RoBERTa two `</s>`.
    pub window_end: Vec<u32>,
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
        named: &PieceNames,
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
        let find = |name: &str| {
            let hint = "the vocabulary needs [PAD], [UNK], [CLS] and [SEP], or its own names of \
                them in tokenizer_config.json";
            let missing = || {
                Error::from(
                    DataError::new(path, format!("no piece `{name}` in the vocabulary")).hint(hint),
                )
            };
            tokenizer.token_to_id(name).ok_or_else(missing)
        };
        let named_piece = |name: &Option<String>| find(name.as_deref().unwrap_or_default());
        let (cls, sep) = (named_piece(&named.cls)?, named_piece(&named.sep)?);
        let unused = names.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
        let star = ["*", "▁*"].iter().find_map(|star| tokenizer.token_to_id(star));
        let (prefix, suffix) = frame(tokenizer, path)?.unwrap_or((vec![cls], vec![sep]));
        let roberta = matches!(tokenizer.get_model(), ModelWrapper::BPE(_))
            && named.cls.as_deref() == Some("<s>");
        let window_end = if roberta { vec![sep; 2] } else { suffix.clone() };
        Ok(Self {
            star: star.unwrap_or(unused[reserved - 1]),
            prefix,
            suffix,
            window_end,
            cls,
            sep,
            pad: named_piece(&named.pad)?,
            unk: named_piece(&named.unk)?,
            unused,
        })
    }

    /// Number of pieces around a text.
    pub fn frame_len(&self) -> usize {
        self.prefix.len() + self.suffix.len()
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

/// What a tokeniser's post-processor puts before and after a text; `None` where it puts nothing.
fn frame(tokenizer: &tokenizers::Tokenizer, path: &Path) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
    let Some(processor) = tokenizer.get_post_processor() else { return Ok(None) };
    let text = Encoding::from_tokens(vec![Token::new(TEXT, "text".to_owned(), (0, 4))], 0);
    let broken = |problem: String| DataError::new(path, problem).field("post_processor");
    // The library trusts that a template names only pieces that it lists.
    let framed = catch_panic(|| processor.process(text, None, true))
        .map_err(|_| broken("the template of a sequence names a piece it does not list".into()))?
        .map_err(|error| broken(format!("the template of a sequence is broken: {error}")))?;
    let ids = framed.get_ids();
    let Some(at) = ids.iter().position(|&id| id == TEXT) else {
        return Err(broken("the template of a sequence leaves the text out".to_owned()).into());
    };
    let (prefix, suffix) = (ids[..at].to_vec(), ids[at + 1..].to_vec());
    if let Some(unknown) =
        prefix.iter().chain(&suffix).find(|&&id| tokenizer.id_to_token(id).is_none())
    {
        let problem = format!("puts piece {unknown} around a text, which does not exist");
        return Err(broken(problem).into());
    }
    Ok(Some((prefix, suffix)).filter(|_| ids.len() > 1))
}
