//! The names of the special pieces: what the files of a folder say, what a family usually calls
//! them, and what a vocabulary suggests.

use tokenizers::AddedToken;

use super::class::Class;

/// PieceNames of special pieces; `None` where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PieceNames {
    /// The first piece of a sequence (XLNet: the last).
    pub cls: Option<String>,
    /// The end of a text.
    pub sep: Option<String>,
    /// Padding.
    pub pad: Option<String>,
    /// What stands for unknown text.
    pub unk: Option<String>,
    /// What stands for a hidden piece.
    pub mask: Option<String>,
}

/// What a family calls `[CLS]`, `[SEP]`, `[PAD]`, `[UNK]` and `[MASK]`.
type Usual = [&'static str; 5];

const BERT: Usual = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"];
const ALBERT: Usual = ["[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]"];
const ROBERTA: Usual = ["<s>", "</s>", "<pad>", "<unk>", "<mask>"];
const MPNET: Usual = ["<s>", "</s>", "<pad>", "[UNK]", "<mask>"];
const XLNET: Usual = ["<cls>", "<sep>", "<pad>", "<unk>", "<mask>"];
/// In the order in which a vocabulary is compared with them: XLNet's holds RoBERTa's too.
const GUESSES: [Usual; 5] = [BERT, ALBERT, XLNET, ROBERTA, MPNET];

impl PieceNames {
    /// The names that a class uses where its files say nothing; none for a class that stands for
    /// several families.
    pub fn of_class(class: Class) -> Self {
        match class {
            Class::Mpnet => MPNET.into(),
            Class::DebertaV2 => BERT.into(),
            Class::XlmRoberta => ROBERTA.into(),
            Class::Albert => ALBERT.into(),
            Class::Xlnet => XLNET.into(),
            Class::Bert | Class::Roberta | Class::AsItStands => Self::default(),
        }
    }

    /// The names that a vocabulary suggests; BERT's where it suggests none.
    pub fn guess(tokenizer: &tokenizers::Tokenizer) -> Self {
        let has = |name: &&str| tokenizer.token_to_id(name).is_some();
        let whole = GUESSES.iter().find(|usual| usual[..4].iter().all(has));
        let start = || GUESSES.iter().find(|usual| has(&usual[0]));
        (*whole.or_else(start).unwrap_or(&BERT)).into()
    }

    /// These names, and those of `others` where these say nothing.
    pub fn or(self, others: Self) -> Self {
        Self {
            cls: self.cls.or(others.cls),
            sep: self.sep.or(others.sep),
            pad: self.pad.or(others.pad),
            unk: self.unk.or(others.unk),
            mask: self.mask.or(others.mask),
        }
    }

    /// All names, in the order in which transformers adds missing pieces.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        [&self.unk, &self.sep, &self.pad, &self.cls, &self.mask].into_iter().flatten()
    }

    /// The pieces that a vocabulary holds, to be marked as special.
    pub fn present(&self, tokenizer: &tokenizers::Tokenizer) -> Vec<AddedToken> {
        let present = self.all().filter(|name| tokenizer.token_to_id(name).is_some());
        present.map(|name| self.added(name)).collect()
    }

    /// A named piece as it is added. `<mask>` takes the blank before it along, as in transformers.
    pub fn added(&self, name: &str) -> AddedToken {
        AddedToken::from(name, true).lstrip(name == "<mask>")
    }
}

impl From<Usual> for PieceNames {
    fn from(usual: Usual) -> Self {
        let [cls, sep, pad, unk, mask] = usual.map(|name| Some(name.to_owned()));
        Self { cls, sep, pad, unk, mask }
    }
}
