//! Encoded documents as Arrow columns and back.
//!
//! Not for: files (`reader`, `writer`) and checks of what the numbers mean (`validate`).

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float32Array, ListArray, StructArray};
use arrow::datatypes::{Float32Type, UInt8Type, UInt16Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::arrays::{
    Built, flags, lists, number_lists, numbers, numbers_of, optional_lists, optional_texts, range,
    smalls, smalls_of, strings, structs, texts, texts_of, u32s,
};
use super::schema;
use crate::text::{
    ScoredPair, TaughtPair, TaughtRelation, TokenizedCandidate, TokenizedDocument, TokenizedEntity,
    TokenizedFact, TokenizedMention,
};

/// Rows of documents → one record batch of [`schema::shard_schema`].
pub(super) fn to_batch(documents: &[TokenizedDocument]) -> Result<RecordBatch, ArrowError> {
    let columns = vec![
        texts(documents.iter().map(|document| &document.title)),
        lists(documents, |document| &document.words, |words| Ok(texts(words)))?,
        number_lists(documents, |document| &document.pieces)?,
        number_lists(documents, |document| &document.word_starts)?,
        number_lists(documents, |document| &document.sentence_starts)?,
        lists(documents, |document| &document.entities, entities)?,
        lists(documents, |document| &document.facts, facts)?,
        flags(documents.iter().map(|document| document.labelled)),
        optional_lists(documents, |document| document.candidates.as_deref(), candidates)?,
        optional_lists(documents, |document| document.kept.as_deref(), kept)?,
        optional_lists(documents, |document| document.taught.as_deref(), taught)?,
        optional_lists(
            documents,
            |document| document.teacher_logits.as_deref(),
            |bits| Ok(smalls::<UInt16Type>(bits.iter().map(|number| **number))),
        )?,
    ];
    RecordBatch::try_new(schema::shard_schema(), columns)
}

fn entities(entities: &[&TokenizedEntity]) -> Built {
    let types = texts(entities.iter().map(|entity| &entity.entity_type));
    let mentions = lists(entities, |entity| &entity.mentions, mentions)?;
    structs(schema::entity_fields(), vec![types, mentions])
}

fn mentions(mentions: &[&TokenizedMention]) -> Built {
    let columns = vec![
        texts(mentions.iter().map(|mention| &mention.name)),
        u32s(mentions.iter().map(|mention| mention.sentence)),
        u32s(mentions.iter().map(|mention| mention.start)),
        u32s(mentions.iter().map(|mention| mention.end)),
        optional_texts(mentions.iter().map(|mention| mention.own_type.as_deref())),
    ];
    structs(schema::mention_fields(), columns)
}

fn facts(facts: &[&TokenizedFact]) -> Built {
    let columns = vec![
        u32s(facts.iter().map(|fact| fact.head)),
        u32s(facts.iter().map(|fact| fact.tail)),
        u32s(facts.iter().map(|fact| fact.relation)),
        number_lists(facts, |fact| &fact.evidence)?,
    ];
    structs(schema::fact_fields(), columns)
}

fn candidates(pairs: &[&TokenizedCandidate]) -> Built {
    let columns = vec![
        u32s(pairs.iter().map(|pair| pair.head)),
        u32s(pairs.iter().map(|pair| pair.tail)),
        flags(pairs.iter().map(|pair| pair.excluded)),
    ];
    structs(schema::candidate_fields(), columns)
}

fn kept(pairs: &[&ScoredPair]) -> Built {
    let scores = Float32Array::from_iter_values(pairs.iter().map(|pair| pair.score));
    let columns = vec![
        u32s(pairs.iter().map(|pair| pair.head)),
        u32s(pairs.iter().map(|pair| pair.tail)),
        Arc::new(scores),
    ];
    structs(schema::pair_fields(), columns)
}

fn taught(pairs: &[&TaughtPair]) -> Built {
    let of = |row: &[&u16]| Ok(smalls::<UInt16Type>(row.iter().map(|number| **number)));
    let bytes = |row: &[&u8]| Ok(smalls::<UInt8Type>(row.iter().map(|number| **number)));
    let columns = vec![
        u32s(pairs.iter().map(|pair| pair.head)),
        u32s(pairs.iter().map(|pair| pair.tail)),
        lists(pairs, |pair| &pair.relations, taught_relations)?,
        lists(pairs, |pair| &pair.evidence, bytes)?,
        lists(pairs, |pair| &pair.tokens, of)?,
        lists(pairs, |pair| &pair.weights, of)?,
    ];
    structs(schema::taught_fields(), columns)
}

fn taught_relations(relations: &[&TaughtRelation]) -> Built {
    let columns = vec![
        smalls::<UInt16Type>(relations.iter().map(|one| one.relation)),
        smalls::<UInt16Type>(relations.iter().map(|one| one.probability)),
        flags(relations.iter().map(|one| one.predicted)),
        smalls::<UInt16Type>(relations.iter().map(|one| one.deviation)),
    ];
    structs(schema::taught_relation_fields(), columns)
}

/// A record batch whose columns have the types of [`schema::shard_schema`]: the compact form in
/// which rows stay in memory.
#[derive(Clone, Debug)]
pub(super) struct ShardColumns(RecordBatch);

impl ShardColumns {
    /// Checks the types of a batch. The column `words` may be missing.
    ///
    /// Errors: a fragment that names a column that is missing or of another type than the schema's.
    pub(super) fn new(batch: RecordBatch) -> Result<Self, String> {
        let schema = schema::shard_schema();
        let has_words = batch.column_by_name("words").is_some();
        let mut wanted =
            schema.fields().iter().filter(|field| has_words || field.name() != "words");
        wanted.try_for_each(|field| schema::check_column(&batch, field))?;
        Ok(Self(batch))
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.0.num_rows()
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.0.get_array_memory_size()
    }

    /// One row as a document; `row` must be below [`len`](Self::len).
    pub(super) fn document(&self, row: usize) -> TokenizedDocument {
        let words = self.0.column_by_name("words").map(|words| texts_of(words.as_list(), row));
        let has_list = |name: &str| self.0[name].is_valid(row);
        TokenizedDocument {
            title: self.title(row).to_owned(),
            words: words.unwrap_or_default(),
            pieces: numbers_of(self.list("pieces"), row),
            word_starts: numbers_of(self.list("word_starts"), row),
            sentence_starts: numbers_of(self.list("sentence_starts"), row),
            entities: self.entities(row),
            facts: self.facts(row),
            labelled: self.0["labelled"].as_boolean().value(row),
            candidates: has_list("candidates").then(|| self.candidates(row)),
            kept: has_list("kept").then(|| self.kept(row)),
            taught: has_list(schema::TAUGHT).then(|| self.taught(row)),
            teacher_logits: has_list(schema::TEACHER_LOGITS)
                .then(|| smalls_of::<UInt16Type>(self.list(schema::TEACHER_LOGITS), row)),
        }
    }

    /// The title of a row.
    pub(super) fn title(&self, row: usize) -> &str {
        self.0["title"].as_string::<i32>().value(row)
    }

    fn list(&self, name: &str) -> &ListArray {
        self.0[name].as_list()
    }

    fn entities(&self, row: usize) -> Vec<TokenizedEntity> {
        let list = self.list("entities");
        let entities = list.values().as_struct();
        let (types, mentions) = (strings(entities, "entity_type"), entities["mentions"].as_list());
        let mention = mention_reader(mentions.values().as_struct());
        let entity = |at: usize| TokenizedEntity {
            entity_type: types.value(at).to_owned(),
            mentions: range(mentions, at).map(&mention).collect(),
        };
        range(list, row).map(entity).collect()
    }

    fn facts(&self, row: usize) -> Vec<TokenizedFact> {
        let list = self.list("facts");
        let facts = list.values().as_struct();
        let [head, tail, relation] = ["head", "tail", "relation"].map(|name| numbers(facts, name));
        let evidence = facts["evidence"].as_list();
        let fact = |at: usize| TokenizedFact {
            head: head.value(at),
            tail: tail.value(at),
            relation: relation.value(at),
            evidence: numbers_of(evidence, at),
        };
        range(list, row).map(fact).collect()
    }

    fn candidates(&self, row: usize) -> Vec<TokenizedCandidate> {
        let list = self.list("candidates");
        let pairs = list.values().as_struct();
        let [head, tail] = ["head", "tail"].map(|name| numbers(pairs, name));
        let excluded = pairs["excluded"].as_boolean();
        let pair = |at: usize| TokenizedCandidate {
            head: head.value(at),
            tail: tail.value(at),
            excluded: excluded.value(at),
        };
        range(list, row).map(pair).collect()
    }

    fn kept(&self, row: usize) -> Vec<ScoredPair> {
        let list = self.list("kept");
        let pairs = list.values().as_struct();
        let [head, tail] = ["head", "tail"].map(|name| numbers(pairs, name));
        let score = pairs["score"].as_primitive::<Float32Type>();
        let pair = |at: usize| ScoredPair {
            head: head.value(at),
            tail: tail.value(at),
            score: score.value(at),
        };
        range(list, row).map(pair).collect()
    }

    fn taught(&self, row: usize) -> Vec<TaughtPair> {
        let list = self.list(schema::TAUGHT);
        let pairs = list.values().as_struct();
        let [head, tail] = ["head", "tail"].map(|name| numbers(pairs, name));
        let [relations, evidence, tokens, weights] =
            ["relations", "evidence", "tokens", "weights"].map(|name| pairs[name].as_list::<i32>());
        let relation = relation_reader(relations.values().as_struct());
        let pair = |at: usize| TaughtPair {
            head: head.value(at),
            tail: tail.value(at),
            relations: range(relations, at).map(&relation).collect(),
            evidence: smalls_of::<UInt8Type>(evidence, at),
            tokens: smalls_of::<UInt16Type>(tokens, at),
            weights: smalls_of::<UInt16Type>(weights, at),
        };
        range(list, row).map(pair).collect()
    }
}

/// Gives the relations of a teacher's pair by their places in an array.
fn relation_reader(relations: &StructArray) -> impl Fn(usize) -> TaughtRelation + '_ {
    let [relation, probability, deviation] = ["relation", "probability", "deviation"]
        .map(|name| relations[name].as_primitive::<UInt16Type>());
    let predicted = relations["predicted"].as_boolean();
    move |at| TaughtRelation {
        relation: relation.value(at),
        probability: probability.value(at),
        predicted: predicted.value(at),
        deviation: deviation.value(at),
    }
}

/// Gives the mentions of an array by their places in it.
fn mention_reader(mentions: &StructArray) -> impl Fn(usize) -> TokenizedMention + '_ {
    let [name, own_type] = ["name", "own_type"].map(|name| strings(mentions, name));
    let [sentence, start, end] = ["sentence", "start", "end"].map(|name| numbers(mentions, name));
    move |at| TokenizedMention {
        name: name.value(at).to_owned(),
        sentence: sentence.value(at),
        start: start.value(at),
        end: end.value(at),
        own_type: own_type.is_valid(at).then(|| own_type.value(at).to_owned()),
    }
}
