//! The host half of GLRE: words, nodes, edges, pairs and what each pair's mentions are.

use std::sync::{Arc, OnceLock};

use ahash::{AHashMap, AHashSet};
use rand::Rng;

use super::graph::{DocumentNodes, Graph};
use super::local::LocalEntries;
use super::{ContextPairs, GlreSettings, SentenceMean};
use crate::Result;
use crate::sampling::{Purpose, asked_pairs, rng};
use crate::systems::words::{FirstMention, Reading, WordOptions, WordTables};
use crate::systems::{Example, Foundation, Layout, Pair, Tables};
use crate::text::TokenizedDocument;
use crate::torch::kernels::bags::Bags;

/// How GLRE lays documents out.
#[derive(Debug)]
pub struct GlreLayout {
    words: WordOptions,
    settings: GlreSettings,
    /// Words of the vocabulary that training has seen once.
    singletons: OnceLock<AHashSet<u32>>,
}

/// Domain of the draws that turn singletons into unknown words, beside those of dropout keys.
const UNKNOWN: u64 = 32;

/// A batch of documents; host data. Nodes are counted through all documents, each kind by itself.
#[derive(Clone, Debug, Default)]
pub struct GlreTables {
    /// Words, entities, and the pairs that see each other.
    pub words: WordTables,
    /// Mention nodes: means over words. [M bags]
    pub mentions: Bags,
    /// Entity nodes: means over mentions. [E bags]
    pub entities: Bags,
    /// Sentence nodes: sums over words, divided as the settings say. [S bags]
    pub sentences: Bags,
    /// First mention of each document, closed by M. [documents + 1]
    pub mention_offsets: Vec<i64>,
    /// Edges among entities, mentions and sentences, in this order.
    pub graph: Graph,
    /// Neighbours by relation of every node, as the graph was made of them.
    pub neighbours: Vec<[Vec<i64>; super::graph::RELATIONS]>,
    /// The head's mentions, asked by the tail.
    pub heads: LocalEntries,
    /// The tail's mentions, asked by the head.
    pub tails: LocalEntries,
    /// Rows of the pairs that were asked for among those that see each other; `None` for all of
    /// them.
    pub wanted: Option<Vec<i64>>,
}

impl GlreLayout {
    pub(super) fn new(foundation: &Foundation, settings: &GlreSettings) -> Self {
        let mut words = WordOptions::of(foundation, settings.long_documents);
        if words.reading != Reading::Words {
            words.reading = settings.reading;
            words.limits.max_pieces =
                [settings.max_pieces, words.limits.max_pieces].into_iter().flatten().min();
            words.limits.truncate |= settings.max_pieces.is_some();
        }
        words.first_mention = FirstMention::Smallest;
        words.coref_rows = usize::MAX;
        Self { words, settings: settings.clone(), singletons: OnceLock::new() }
    }

    /// Pairs that can be asked about.
    fn candidates(&self, document: &TokenizedDocument) -> Vec<Pair> {
        let is =
            |entity: u32, wanted: &str| document.entities[entity as usize].entity_type == wanted;
        let asked = |&(head, tail): &Pair| match &self.settings.pair_types {
            Some((first, second)) => is(head, first) && is(tail, second),
            None => true,
        };
        asked_pairs(document).into_iter().filter(asked).collect()
    }

    /// Whether documents are read as words whose rare ones may be hidden.
    fn hides_words(&self) -> bool {
        self.words.reading == Reading::Words && self.settings.unknown_singletons > 0.0
    }

    /// Turns some of the words that training has seen once into unknown ones, in training: a
    /// function of (seed, visit, word).
    fn hide_singletons(&self, words: &mut WordTables, examples: &[Example]) {
        let Some(singletons) = self.singletons.get().filter(|_| self.hides_words()) else { return };
        let threshold = threshold(self.settings.unknown_singletons);
        let draws = words.keys(UNKNOWN, &words.word_offsets);
        let spans =
            examples.iter().zip(words.word_offsets.windows(2)).filter(|(example, _)| example.train);
        for (_, span) in spans {
            let range = span[0] as usize..span[1] as usize;
            for (id, draw) in words.ids[range.clone()].iter_mut().zip(&draws[range]) {
                if draw.cast_unsigned() >> 32 < threshold && singletons.contains(&(*id as u32)) {
                    *id = i64::from(self.words.pieces.unk);
                }
            }
        }
    }

    /// The examples with all pairs that see each other, and the rows of those that were asked for.
    fn seen(&self, examples: &[Example]) -> Option<(Vec<Example>, Vec<i64>)> {
        let mut wanted = Vec::new();
        let mut base = 0;
        let mut seen = Vec::new();
        let mut same = true;
        for example in examples {
            let mut example = example.clone();
            let all = if example.train && self.settings.context {
                self.candidates(&example.document)
            } else {
                Vec::new()
            };
            let place: AHashMap<Pair, usize> =
                all.iter().enumerate().map(|(row, &pair)| (pair, row)).collect();
            let rows: Option<Vec<i64>> = example
                .pairs
                .iter()
                .map(|pair| place.get(pair).map(|&row| base + row as i64))
                .collect();
            match rows {
                Some(rows) if example.pairs.len() < all.len() => {
                    same = false;
                    wanted.extend(rows);
                    example.pairs = all;
                }
                _ => wanted.extend((0..example.pairs.len() as i64).map(|row| base + row)),
            }
            base += example.pairs.len() as i64;
            seen.push(example);
        }
        (!same).then_some((seen, wanted))
    }
}

impl Layout for GlreLayout {
    fn training_pairs(
        &self,
        document: &TokenizedDocument,
        seed: u64,
        epoch: u64,
        row: u64,
    ) -> Result<Vec<Pair>> {
        let mut pairs = self.candidates(document);
        if self.settings.na_keep < 1.0 {
            let labelled: AHashSet<Pair> =
                document.facts.iter().map(|fact| (fact.head, fact.tail)).collect();
            let mut stream = rng(seed, Purpose::Finetune, epoch, row);
            let threshold = threshold(self.settings.na_keep);
            // One draw a pair, labelled or not, so that a pair's draw does not depend on the labels
            // before it.
            pairs
                .retain(|pair| u64::from(stream.next_u32()) < threshold || labelled.contains(pair));
        }
        Ok(pairs)
    }

    fn evaluation_pairs(&self, document: &TokenizedDocument) -> Result<Vec<Pair>> {
        Ok(self.candidates(document))
    }

    fn observe(&self, documents: &mut dyn Iterator<Item = Arc<TokenizedDocument>>) {
        if !self.hides_words() {
            return;
        }
        let mut counts: AHashMap<u32, usize> = AHashMap::new();
        for document in documents {
            let first =
                |span: &[u32]| (span[0] < span[1]).then(|| document.pieces[span[0] as usize]);
            document
                .word_starts
                .windows(2)
                .filter_map(first)
                .for_each(|piece| *counts.entry(piece).or_default() += 1);
        }
        let _ = self.singletons.set(
            counts.into_iter().filter(|&(_, count)| count == 1).map(|(piece, _)| piece).collect(),
        );
    }

    /// A pair passes products as wide as a word's in the encoder's last layers, and attends to all
    /// other pairs of its document.
    fn cost(&self, document: &TokenizedDocument, pairs: usize) -> usize {
        document.pieces.len() + pairs * 4 + pairs * pairs / 256
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        let seen = (self.settings.context_pairs == ContextPairs::All)
            .then(|| self.seen(examples))
            .flatten();
        let (examples, wanted) = match &seen {
            Some((examples, wanted)) => (examples.as_slice(), Some(wanted.clone())),
            None => (examples, None),
        };
        let mut words = WordTables::new(&self.words, examples)?;
        self.hide_singletons(&mut words, examples);
        let mut tables = GlreTables { mention_offsets: vec![0], wanted, ..GlreTables::default() };
        let mut documents = Vec::with_capacity(examples.len());
        for (index, example) in examples.iter().enumerate() {
            documents.push(tables.push_nodes(&self.settings, &words, index, &example.document));
        }
        tables.push_edges(&self.settings, &words, &documents);
        tables.push_local(&words, &documents);
        Ok(Box::new(GlreTables { words, ..tables }))
    }
}

/// A probability as a bound on 32-bit draws.
fn threshold(p: f64) -> u64 {
    (p * 4_294_967_296.0) as u64
}

impl GlreTables {
    /// Appends the nodes of a document; the result counts each kind of node by itself.
    fn push_nodes(
        &mut self,
        settings: &GlreSettings,
        words: &WordTables,
        index: usize,
        document: &TokenizedDocument,
    ) -> DocumentNodes {
        let (first_word, end) = (words.word_offsets[index], words.word_offsets[index + 1]);
        let mut nodes = DocumentNodes {
            entities: (self.entities.len() as i64, document.entities.len()),
            first_mention: self.mentions.len() as i64,
            ..DocumentNodes::default()
        };
        for (number, entity) in document.entities.iter().enumerate() {
            let mut kept = Vec::new();
            for mention in &entity.mentions {
                let span = |at: u32| (first_word + i64::from(at)).min(end);
                // Mentions beyond the cut have no words and do not count.
                if span(mention.start) < end {
                    kept.push(self.mentions.len() as i64);
                }
                self.mentions.push_mean(span(mention.start)..span(mention.end), 1.0);
                nodes.mentions.push((number, mention.sentence as usize));
            }
            let weight = 1.0 / kept.len().max(1) as f32;
            self.entities.push(kept.into_iter().map(|node| (node, weight)));
        }
        self.mention_offsets.push(self.mentions.len() as i64);
        nodes.sentences = self.push_sentences(settings, words, index);
        nodes
    }

    fn push_sentences(
        &mut self,
        settings: &GlreSettings,
        words: &WordTables,
        index: usize,
    ) -> (i64, usize) {
        let range =
            words.document_sentences[index] as usize..words.document_sentences[index + 1] as usize;
        let spans: Vec<(i64, i64)> = range
            .clone()
            .map(|at| (words.sentence_offsets[at], words.sentence_offsets[at + 1]))
            .collect();
        let longest = spans.iter().map(|(start, end)| end - start).max().unwrap_or(0);
        let first = self.sentences.len() as i64;
        for (start, end) in spans {
            let count =
                if settings.sentence_mean == SentenceMean::True { end - start } else { longest };
            let weight = 1.0 / count.max(1) as f32;
            self.sentences.push((start..end).map(|word| (word, weight)));
        }
        (first, range.len())
    }

    /// Nodes of all kinds are numbered entities first, then mentions, then sentences.
    fn push_edges(
        &mut self,
        settings: &GlreSettings,
        words: &WordTables,
        documents: &[DocumentNodes],
    ) {
        let (entities, mentions) = (self.entities.len() as i64, self.mentions.len() as i64);
        let mut kinds: [Vec<_>; 3] = Default::default();
        for document in documents {
            let numbered = DocumentNodes {
                first_mention: entities + document.first_mention,
                sentences: (entities + mentions + document.sentences.0, document.sentences.1),
                ..document.clone()
            };
            let mut neighbours = numbered.neighbours(settings.rgcn_self_loops).into_iter();
            for (kind, count) in kinds.iter_mut().zip([
                document.entities.1,
                document.mentions.len(),
                document.sentences.1,
            ]) {
                kind.extend(neighbours.by_ref().take(count));
            }
        }
        debug_assert_eq!(words.documents(), documents.len());
        self.neighbours = kinds.into_iter().flatten().collect();
        self.graph = Graph::new(self.neighbours.iter(), settings.rgcn_norm);
    }

    fn push_local(&mut self, words: &WordTables, documents: &[DocumentNodes]) {
        let mut mentions: Vec<Vec<(i64, i64)>> = vec![Vec::new(); self.entities.len()];
        for document in documents {
            for (index, &(entity, sentence)) in document.mentions.iter().enumerate() {
                let node =
                    (document.first_mention + index as i64, document.sentences.0 + sentence as i64);
                mentions[document.entities.0 as usize + entity].push(node);
            }
        }
        for (&head, &tail) in words.heads.iter().zip(&words.tails) {
            self.heads.push(tail, mentions[head as usize].iter().copied());
            self.tails.push(head, mentions[tail as usize].iter().copied());
        }
    }
}
