//! The classes of transformers' tokenisers, by the names that files use.

/// How transformers builds the tokeniser of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// BERT's normaliser and pre-tokeniser over the vocabulary.
    Bert,
    /// As BERT, with RoBERTa's names of the special pieces.
    Mpnet,
    /// Byte-level BPE over the vocabulary.
    Roberta,
    /// Sentencepiece, with BERT's names of the special pieces.
    DebertaV2,
    /// Sentencepiece whose pieces are numbered one higher than in its file.
    XlmRoberta,
    /// Sentencepiece without accents and case.
    Albert,
    /// Sentencepiece without accents; special pieces stand after the text alone.
    Xlnet,
    /// `tokenizer.json` as it stands.
    AsItStands,
}

/// Values of `tokenizer_class`, without the `Fast` at their end.
const CLASSES: [(&str, Class); 17] = [
    ("BertTokenizer", Class::Bert),
    ("DistilBertTokenizer", Class::Bert),
    ("ElectraTokenizer", Class::Bert),
    ("ConvBertTokenizer", Class::Bert),
    ("LayoutLMTokenizer", Class::Bert),
    ("LxmertTokenizer", Class::Bert),
    ("MobileBertTokenizer", Class::Bert),
    ("MPNetTokenizer", Class::Mpnet),
    ("RobertaTokenizer", Class::Roberta),
    ("BartTokenizer", Class::Roberta),
    ("LongformerTokenizer", Class::Roberta),
    ("DebertaV2Tokenizer", Class::DebertaV2),
    ("XLMRobertaTokenizer", Class::XlmRoberta),
    ("AlbertTokenizer", Class::Albert),
    ("XLNetTokenizer", Class::Xlnet),
    ("PreTrainedTokenizer", Class::AsItStands),
    ("TokenizersBackend", Class::AsItStands),
];

/// Values of `model_type`.
const MODELS: [(&str, Class); 28] = [
    ("bert", Class::Bert),
    ("convbert", Class::Bert),
    ("distilbert", Class::Bert),
    ("electra", Class::Bert),
    ("ernie", Class::Bert),
    ("layoutlm", Class::Bert),
    ("lxmert", Class::Bert),
    ("megatron-bert", Class::Bert),
    ("mobilebert", Class::Bert),
    ("nezha", Class::Bert),
    ("retribert", Class::Bert),
    ("squeezebert", Class::Bert),
    ("visual_bert", Class::Bert),
    ("mpnet", Class::Mpnet),
    ("bart", Class::Roberta),
    ("data2vec-text", Class::Roberta),
    ("ibert", Class::Roberta),
    ("longformer", Class::Roberta),
    ("mega", Class::Roberta),
    ("mra", Class::Roberta),
    ("roberta", Class::Roberta),
    ("roberta-prelayernorm", Class::Roberta),
    ("deberta-v2", Class::DebertaV2),
    ("xlm-roberta", Class::XlmRoberta),
    ("xlm-roberta-xl", Class::XlmRoberta),
    ("albert", Class::Albert),
    ("xlnet", Class::Xlnet),
    ("modernbert", Class::AsItStands),
];

impl Class {
    /// The class that a `tokenizer_class` names, slow or fast.
    pub fn named(name: &str) -> Option<Self> {
        find(&CLASSES, name.strip_suffix("Fast").unwrap_or(name))
    }

    /// The class of a `model_type`.
    pub fn of_model(model_type: &str) -> Option<Self> {
        find(&MODELS, model_type)
    }
}

fn find(table: &[(&str, Class)], name: &str) -> Option<Class> {
    table.iter().find(|(known, _)| *known == name).map(|&(_, class)| class)
}
