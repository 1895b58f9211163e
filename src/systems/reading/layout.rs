//! The host half of reading: views with markers, windows, and the tables that find mentions,
//! attention rows and pairs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::systems::{
    BatchWindows, DocumentViews, Example, Foundation, Layout, PackedDocuments, Pair, Tables,
};
use crate::text::{Markers, TokenizedDocument, View, ViewChoices, ViewOptions, WindowRule};
use crate::torch::kernels::context::{AttentionTable, ContextTable, EntityRow, TokenRange};

/// Which markers stand around mentions (docs/systems.md, "Words, pieces and markers").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarkerScheme {
    /// `*`, once a word however many mentions start or end there (ATLOP on DocRED).
    #[default]
    StarPerWord,
    /// `*` around every distinct mention (ATLOP on CDR and GDA).
    StarPerMention,
    /// A start marker for each entity, an end marker for each type (DocRE-II's release).
    Typed,
    /// Start and end markers for each entity (DSDocRE).
    Entity,
    /// None: a mention stands at its first piece.
    None,
}

/// Which tokens stand for a mention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MentionTokens {
    /// Its start marker (ATLOP).
    #[default]
    Start,
    /// The mean of start and end marker (DocRE-II's release).
    Both,
}

/// How documents are laid out.
#[derive(Clone, Debug)]
pub struct ReadingOptions {
    /// Markers.
    pub markers: MarkerScheme,
    /// Tokens of a mention.
    pub mention: MentionTokens,
    /// Most pieces of a document.
    pub max_pieces: Option<usize>,
    /// Whether longer ones are cut.
    pub truncate: bool,
    /// Windows of long documents; `None`: one pass.
    pub windows: Option<WindowRule>,
}

/// The host half.
pub struct ReadingLayout {
    views: DocumentViews,
    windows: WindowRule,
    mention: MentionTokens,
}

/// Documents of a batch, ready to be read.
#[derive(Default)]
pub struct ReadingTables {
    /// Documents as if each were read in one pass.
    pub documents: PackedDocuments,
    /// What the encoder reads.
    pub windows: BatchWindows,
    /// Token of each mention's start, [E × mention_width], and whether there is such a mention.
    pub mention_starts: Vec<i64>,
    /// Token of each mention's end, where both count.
    pub mention_ends: Option<Vec<i64>>,
    /// 1 where an entity has so many mentions, else 0; [E × mention_width].
    pub mention_mask: Vec<f32>,
    /// Most mentions of an entity; at least 1.
    pub mention_width: usize,
    /// Which attention rows make up an entity.
    pub plan: AttentionTable,
    /// Pairs by document.
    pub contexts: ContextTable,
    /// Tokens of each sentence of each document.
    pub sentences: Vec<Vec<TokenRange>>,
    /// Head entity rows, `[P]`.
    pub heads: Vec<i64>,
    /// Tail entity rows, `[P]`.
    pub tails: Vec<i64>,
}

impl ReadingLayout {
    /// A layout for a tokenizer, entity types and the seed of the stage's dropout masks.
    pub fn new(foundation: &Foundation, options: ReadingOptions) -> Self {
        let markers = match options.markers {
            MarkerScheme::StarPerWord => Markers::StarPerWord,
            MarkerScheme::StarPerMention => Markers::StarPerMention,
            MarkerScheme::Typed => Markers::Typed(foundation.entity_types.clone()),
            MarkerScheme::Entity => Markers::PerEntity,
            MarkerScheme::None => Markers::None,
        };
        let view = ViewOptions {
            max_pieces: options.max_pieces,
            truncate: options.truncate,
            pad_to: None,
            max_mentions: None,
            markers,
            repeat_masked: false,
            in_turn: false,
        };
        let one_pass = WindowRule {
            capacity: usize::MAX,
            prefix: Vec::new(),
            suffix: Vec::new(),
            stride: None,
            most: None,
        };
        let (pieces, seed) = (foundation.pieces.clone(), foundation.seed);
        Self {
            views: DocumentViews { pieces, options: view, seed },
            windows: options.windows.unwrap_or(one_pass),
            mention: options.mention,
        }
    }

    /// The view of a document.
    ///
    /// # Errors
    /// A document over the limit that may not be cut; markers that run out.
    pub fn view(&self, document: &TokenizedDocument) -> Result<View> {
        self.views.view(document, &ViewChoices::default())
    }

    /// Lays examples out.
    ///
    /// # Errors
    /// As [`Self::view`].
    pub fn read(&self, examples: &[Example]) -> Result<ReadingTables> {
        let views: Vec<View> =
            examples.iter().map(|example| self.view(&example.document)).collect::<Result<_>>()?;
        let visits: Vec<u64> = examples.iter().map(|example| example.visit).collect();
        let documents = self.views.pack(&views, &visits);
        let windows = BatchWindows::new(
            &documents.views.ids,
            &documents.views.offsets,
            &self.windows,
            &visits,
            self.views.seed,
        );
        let widths = views.iter().flat_map(|view| &view.mention_spans).map(Vec::len);
        let mut tables = ReadingTables {
            mention_ends: (self.mention == MentionTokens::Both).then(Vec::new),
            mention_width: widths.max().unwrap_or(0).max(1),
            documents,
            windows,
            ..ReadingTables::default()
        };
        for (index, (view, example)) in views.iter().zip(examples).enumerate() {
            tables.push_mentions(index, view);
            tables.push_rows(view, self.mention);
            tables.push_pairs(index, view, example);
        }
        Ok(tables)
    }
}

impl ReadingTables {
    fn push_mentions(&mut self, index: usize, view: &View) {
        let first = self.documents.views.offsets[index];
        for spans in &view.mention_spans {
            // Tokens of absent mentions are masked; any that exists will do.
            let padded =
                spans.iter().copied().chain(std::iter::repeat((0, 0))).take(self.mention_width);
            for (number, (start, end)) in padded.enumerate() {
                self.mention_starts.push(first + i64::from(start));
                self.mention_ends.iter_mut().for_each(|ends| ends.push(first + i64::from(end)));
                self.mention_mask.push(f32::from(u8::from(number < spans.len())));
            }
        }
    }

    fn push_rows(&mut self, view: &View, mention: MentionTokens) {
        let mut rows = Vec::new();
        for (entity, spans) in (0u32..).zip(&view.mention_spans) {
            let share = 1.0 / spans.len() as f32;
            for &(start, end) in spans {
                let row = |position, weight| EntityRow { entity, position, weight };
                match mention {
                    MentionTokens::Start => rows.push(row(start, share)),
                    MentionTokens::Both => {
                        rows.extend([row(start, share / 2.0), row(end, share / 2.0)]);
                    }
                }
            }
        }
        self.plan.push(&self.windows.packed, view.ids.len(), view.mention_spans.len(), &rows);
    }

    fn push_pairs(&mut self, index: usize, view: &View, example: &Example) {
        self.contexts.push(view.ids.len(), view.mention_spans.len(), &example.pairs);
        let sentence = |ends: &[u32]| (ends[0], ends[1] - ends[0]);
        self.sentences.push(view.sentence_starts.windows(2).map(sentence).collect());
        let base = self.documents.entity_base(index);
        self.heads.extend(example.pairs.iter().map(|pair| base + i64::from(pair.0)));
        self.tails.extend(example.pairs.iter().map(|pair| base + i64::from(pair.1)));
    }
}

/// All pairs that are asked about in the order of the releases of ATLOP and DocRE-II: labelled ones
/// by first appearance, then the others row by row.
pub fn labelled_first(document: &TokenizedDocument) -> Vec<Pair> {
    let entities = document.entities.len();
    let mut seen = vec![false; entities * entities];
    let labelled = document.facts.iter().map(|fact| (fact.head, fact.tail));
    let all = labelled.chain(crate::sampling::asked_pairs(document));
    all.filter(|pair| {
        !std::mem::replace(&mut seen[pair.0 as usize * entities + pair.1 as usize], true)
    })
    .collect()
}

impl Layout for ReadingLayout {
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        _seed: u64,
        _epoch: u64,
        _row: u64,
    ) -> Result<Vec<Pair>> {
        Ok(labelled_first(document))
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        Ok(Box::new(self.read(examples)?))
    }
}
