//! Encoded documents as Arrow columns and back.
//!
//! Not for: files (`reader`, `writer`) and checks of what the numbers mean (`validate`).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, ListArray, StringArray, StructArray,
    UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Float32Type, UInt32Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::schema;
use crate::text::{
    ScoredPair, TokenizedCandidate, TokenizedDocument, TokenizedEntity, TokenizedFact,
    TokenizedMention,
};

/// Rows of documents → one record batch of [`schema::shard_schema`].
pub(super) fn to_batch(documents: &[TokenizedDocument]) -> Result<RecordBatch, ArrowError> {
    let numbers = |of: fn(&TokenizedDocument) -> &Vec<u32>| {
        list(
            documents.iter().map(|document| of(document).len()),
            u32s(documents.iter().flat_map(|document| of(document).iter().copied())),
        )
    };
    let words: StringArray =
        documents.iter().flat_map(|document| &document.words).map(Some).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(documents.iter().map(|document| &document.title))),
        list(documents.iter().map(|document| document.words.len()), Arc::new(words))?,
        numbers(|document| &document.pieces)?,
        numbers(|document| &document.word_starts)?,
        numbers(|document| &document.sentence_starts)?,
        entities(documents)?,
        facts(documents)?,
        Arc::new(BooleanArray::from_iter(documents.iter().map(|document| Some(document.labelled)))),
        candidates(documents)?,
        kept(documents)?,
    ];
    RecordBatch::try_new(schema::shard_schema(), columns)
}

pub(super) fn u32s(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(values))
}

pub(super) fn list(
    lengths: impl IntoIterator<Item = usize>,
    values: ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    nullable_list(lengths, values, None)
}

pub(super) fn nullable_list(
    lengths: impl IntoIterator<Item = usize>,
    values: ArrayRef,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let offsets = OffsetBuffer::try_from_lengths(lengths)
        .map_err(|error| ArrowError::ComputeError(error.to_string()))?;
    Ok(Arc::new(ListArray::try_new(
        schema::item_field(values.data_type().clone()),
        offsets,
        values,
        nulls,
    )?))
}

fn entities(documents: &[TokenizedDocument]) -> Result<ArrayRef, ArrowError> {
    let all: Vec<&TokenizedEntity> =
        documents.iter().flat_map(|document| &document.entities).collect();
    let mentions: Vec<&TokenizedMention> = all.iter().flat_map(|entity| &entity.mentions).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(mentions.iter().map(|mention| &mention.name))),
        u32s(mentions.iter().map(|mention| mention.sentence)),
        u32s(mentions.iter().map(|mention| mention.start)),
        u32s(mentions.iter().map(|mention| mention.end)),
        Arc::new(StringArray::from_iter(
            mentions.iter().map(|mention| mention.own_type.as_deref()),
        )),
    ];
    let mentions = StructArray::try_new(schema::mention_fields(), columns, None)?;
    let types = StringArray::from_iter_values(all.iter().map(|entity| &entity.entity_type));
    let mentions = list(all.iter().map(|entity| entity.mentions.len()), Arc::new(mentions))?;
    let structs =
        StructArray::try_new(schema::entity_fields(), vec![Arc::new(types), mentions], None)?;
    list(documents.iter().map(|document| document.entities.len()), Arc::new(structs))
}

fn facts(documents: &[TokenizedDocument]) -> Result<ArrayRef, ArrowError> {
    let all: Vec<&TokenizedFact> = documents.iter().flat_map(|document| &document.facts).collect();
    let evidence = u32s(all.iter().flat_map(|fact| fact.evidence.iter().copied()));
    let columns: Vec<ArrayRef> = vec![
        u32s(all.iter().map(|fact| fact.head)),
        u32s(all.iter().map(|fact| fact.tail)),
        u32s(all.iter().map(|fact| fact.relation)),
        list(all.iter().map(|fact| fact.evidence.len()), evidence)?,
    ];
    let structs = StructArray::try_new(schema::fact_fields(), columns, None)?;
    list(documents.iter().map(|document| document.facts.len()), Arc::new(structs))
}

fn kept(documents: &[TokenizedDocument]) -> Result<ArrayRef, ArrowError> {
    let all: Vec<ScoredPair> =
        documents.iter().flat_map(|document| document.kept.iter().flatten()).copied().collect();
    let scores = Float32Array::from_iter_values(all.iter().map(|pair| pair.score));
    let columns: Vec<ArrayRef> = vec![
        u32s(all.iter().map(|pair| pair.head)),
        u32s(all.iter().map(|pair| pair.tail)),
        Arc::new(scores),
    ];
    let structs = StructArray::try_new(schema::pair_fields(), columns, None)?;
    let nulls = NullBuffer::from_iter(documents.iter().map(|document| document.kept.is_some()));
    let lengths = documents.iter().map(|document| document.kept.as_ref().map_or(0, Vec::len));
    nullable_list(lengths, Arc::new(structs), Some(nulls))
}

fn candidates(documents: &[TokenizedDocument]) -> Result<ArrayRef, ArrowError> {
    let all: Vec<TokenizedCandidate> = documents
        .iter()
        .flat_map(|document| document.candidates.iter().flatten())
        .copied()
        .collect();
    let excluded = BooleanArray::from_iter(all.iter().map(|pair| Some(pair.excluded)));
    let columns: Vec<ArrayRef> = vec![
        u32s(all.iter().map(|pair| pair.head)),
        u32s(all.iter().map(|pair| pair.tail)),
        Arc::new(excluded),
    ];
    let structs = StructArray::try_new(schema::candidate_fields(), columns, None)?;
    let nulls =
        NullBuffer::from_iter(documents.iter().map(|document| document.candidates.is_some()));
    let lengths = documents.iter().map(|document| document.candidates.as_ref().map_or(0, Vec::len));
    nullable_list(lengths, Arc::new(structs), Some(nulls))
}

/// The typed columns of a record batch: the compact form in which rows stay in memory.
#[derive(Clone, Debug)]
pub(super) struct ShardColumns {
    rows: usize,
    bytes: usize,
    title: StringArray,
    words: Option<ListColumn<StringArray>>,
    pieces: ListColumn<UInt32Array>,
    word_starts: ListColumn<UInt32Array>,
    sentence_starts: ListColumn<UInt32Array>,
    entities: ListColumn<EntityColumns>,
    facts: ListColumn<FactColumns>,
    labelled: BooleanArray,
    candidates: ListColumn<CandidateColumns>,
    candidate_nulls: Option<NullBuffer>,
    kept: ListColumn<PairColumns>,
    kept_nulls: Option<NullBuffer>,
}

/// A list column: offsets into typed values.
#[derive(Clone, Debug)]
struct ListColumn<T> {
    offsets: OffsetBuffer<i32>,
    values: T,
}

impl<T> ListColumn<T> {
    fn range(&self, row: usize) -> Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }
}

impl ListColumn<UInt32Array> {
    fn row(&self, row: usize) -> Vec<u32> {
        self.values.values()[self.range(row)].to_vec()
    }
}

#[derive(Clone, Debug)]
struct EntityColumns {
    entity_type: StringArray,
    mentions: ListColumn<MentionColumns>,
}

#[derive(Clone, Debug)]
struct MentionColumns {
    name: StringArray,
    sentence: UInt32Array,
    start: UInt32Array,
    end: UInt32Array,
    own_type: StringArray,
}

#[derive(Clone, Debug)]
struct FactColumns {
    head: UInt32Array,
    tail: UInt32Array,
    relation: UInt32Array,
    evidence: ListColumn<UInt32Array>,
}

#[derive(Clone, Debug)]
struct PairColumns {
    head: UInt32Array,
    tail: UInt32Array,
    score: Float32Array,
}

#[derive(Clone, Debug)]
struct CandidateColumns {
    head: UInt32Array,
    tail: UInt32Array,
    excluded: BooleanArray,
}

impl ShardColumns {
    /// Takes a batch apart. The column `words` may be missing.
    ///
    /// Errors: a fragment that names a column that is missing or of another type than the schema's.
    pub(super) fn new(batch: &RecordBatch) -> Result<Self, String> {
        let column =
            |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"));
        let kept = as_list(column("kept")?, "kept")?;
        let candidates = as_list(column("candidates")?, "candidates")?;
        Ok(Self {
            rows: batch.num_rows(),
            bytes: batch.get_array_memory_size(),
            title: as_text(column("title")?, "title")?,
            words: batch
                .column_by_name("words")
                .map(|array| text_list(array, "words"))
                .transpose()?,
            pieces: number_list(column("pieces")?, "pieces")?,
            word_starts: number_list(column("word_starts")?, "word_starts")?,
            sentence_starts: number_list(column("sentence_starts")?, "sentence_starts")?,
            entities: entity_columns(column("entities")?)?,
            facts: fact_columns(column("facts")?)?,
            labelled: column("labelled")?
                .as_boolean_opt()
                .cloned()
                .ok_or("column `labelled` is not of type bool")?,
            candidate_nulls: candidates.nulls().cloned(),
            candidates: candidate_columns(candidates)?,
            kept_nulls: kept.nulls().cloned(),
            kept: pair_columns(kept)?,
        })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// One row as a document; `row` must be below [`len`](Self::len).
    pub(super) fn document(&self, row: usize) -> TokenizedDocument {
        let words = self
            .words
            .as_ref()
            .map(|words| words.range(row).map(|at| words.values.value(at).to_owned()).collect());
        TokenizedDocument {
            title: self.title(row).to_owned(),
            words: words.unwrap_or_default(),
            pieces: self.pieces.row(row),
            word_starts: self.word_starts.row(row),
            sentence_starts: self.sentence_starts.row(row),
            entities: self.entities.range(row).map(|at| self.entities.values.entity(at)).collect(),
            facts: self.facts.range(row).map(|at| self.facts.values.fact(at)).collect(),
            labelled: self.labelled.value(row),
            candidates: self
                .candidate_nulls
                .as_ref()
                .is_none_or(|nulls| nulls.is_valid(row))
                .then(|| self.candidates(row)),
            kept: self
                .kept_nulls
                .as_ref()
                .is_none_or(|nulls| nulls.is_valid(row))
                .then(|| self.pairs(row)),
        }
    }

    /// The title of a row.
    pub(super) fn title(&self, row: usize) -> &str {
        self.title.value(row)
    }

    fn candidates(&self, row: usize) -> Vec<TokenizedCandidate> {
        let CandidateColumns { head, tail, excluded } = &self.candidates.values;
        let pair = |at: usize| TokenizedCandidate {
            head: head.value(at),
            tail: tail.value(at),
            excluded: excluded.value(at),
        };
        self.candidates.range(row).map(pair).collect()
    }

    fn pairs(&self, row: usize) -> Vec<ScoredPair> {
        let PairColumns { head, tail, score } = &self.kept.values;
        self.kept
            .range(row)
            .map(|at| ScoredPair {
                head: head.value(at),
                tail: tail.value(at),
                score: score.value(at),
            })
            .collect()
    }
}

impl EntityColumns {
    fn entity(&self, at: usize) -> TokenizedEntity {
        let MentionColumns { name, sentence, start, end, own_type } = &self.mentions.values;
        let mentions = self.mentions.range(at).map(|at| TokenizedMention {
            name: name.value(at).to_owned(),
            sentence: sentence.value(at),
            start: start.value(at),
            end: end.value(at),
            own_type: own_type.is_valid(at).then(|| own_type.value(at).to_owned()),
        });
        TokenizedEntity {
            entity_type: self.entity_type.value(at).to_owned(),
            mentions: mentions.collect(),
        }
    }
}

impl FactColumns {
    fn fact(&self, at: usize) -> TokenizedFact {
        let Self { head, tail, relation, evidence } = self;
        TokenizedFact {
            head: head.value(at),
            tail: tail.value(at),
            relation: relation.value(at),
            evidence: evidence.row(at),
        }
    }
}

fn wrong(name: &str, wanted: &str) -> String {
    format!("column `{name}` is not of type {wanted}")
}

fn as_text(array: &ArrayRef, name: &str) -> Result<StringArray, String> {
    array.as_string_opt::<i32>().cloned().ok_or_else(|| wrong(name, "utf8"))
}

fn as_list<'a>(array: &'a ArrayRef, name: &str) -> Result<&'a ListArray, String> {
    array.as_list_opt::<i32>().ok_or_else(|| wrong(name, "list"))
}

fn as_struct<'a>(array: &'a ArrayRef, name: &str) -> Result<&'a StructArray, String> {
    array.as_struct_opt().ok_or_else(|| wrong(name, "struct"))
}

fn number_in(fields: &StructArray, name: &str) -> Result<UInt32Array, String> {
    as_numbers(child(fields, name)?, name)
}

fn as_numbers(array: &ArrayRef, name: &str) -> Result<UInt32Array, String> {
    array.as_primitive_opt::<UInt32Type>().cloned().ok_or_else(|| wrong(name, "u32"))
}

fn child<'a>(fields: &'a StructArray, name: &str) -> Result<&'a ArrayRef, String> {
    fields.column_by_name(name).ok_or_else(|| format!("no field `{name}`"))
}

fn text_list(array: &ArrayRef, name: &str) -> Result<ListColumn<StringArray>, String> {
    let list = as_list(array, name)?;
    Ok(ListColumn { offsets: list.offsets().clone(), values: as_text(list.values(), name)? })
}

fn number_list(array: &ArrayRef, name: &str) -> Result<ListColumn<UInt32Array>, String> {
    let list = as_list(array, name)?;
    Ok(ListColumn { offsets: list.offsets().clone(), values: as_numbers(list.values(), name)? })
}

fn entity_columns(array: &ArrayRef) -> Result<ListColumn<EntityColumns>, String> {
    let list = as_list(array, "entities")?;
    let fields = as_struct(list.values(), "entities")?;
    let mentions = as_list(child(fields, "mentions")?, "mentions")?;
    let inner = as_struct(mentions.values(), "mentions")?;
    let values = MentionColumns {
        name: as_text(child(inner, "name")?, "name")?,
        sentence: number_in(inner, "sentence")?,
        start: number_in(inner, "start")?,
        end: number_in(inner, "end")?,
        own_type: as_text(child(inner, "own_type")?, "own_type")?,
    };
    let mentions = ListColumn { offsets: mentions.offsets().clone(), values };
    let values = EntityColumns {
        entity_type: as_text(child(fields, "entity_type")?, "entity_type")?,
        mentions,
    };
    Ok(ListColumn { offsets: list.offsets().clone(), values })
}

fn fact_columns(array: &ArrayRef) -> Result<ListColumn<FactColumns>, String> {
    let list = as_list(array, "facts")?;
    let fields = as_struct(list.values(), "facts")?;
    let values = FactColumns {
        head: number_in(fields, "head")?,
        tail: number_in(fields, "tail")?,
        relation: number_in(fields, "relation")?,
        evidence: number_list(child(fields, "evidence")?, "evidence")?,
    };
    Ok(ListColumn { offsets: list.offsets().clone(), values })
}

fn candidate_columns(list: &ListArray) -> Result<ListColumn<CandidateColumns>, String> {
    let fields = as_struct(list.values(), "candidates")?;
    let excluded = child(fields, "excluded")?
        .as_boolean_opt()
        .cloned()
        .ok_or_else(|| wrong("excluded", "bool"))?;
    let values = CandidateColumns {
        head: number_in(fields, "head")?,
        tail: number_in(fields, "tail")?,
        excluded,
    };
    Ok(ListColumn { offsets: list.offsets().clone(), values })
}

fn pair_columns(list: &ListArray) -> Result<ListColumn<PairColumns>, String> {
    let fields = as_struct(list.values(), "kept")?;
    let score = child(fields, "score")?
        .as_primitive_opt::<Float32Type>()
        .cloned()
        .ok_or_else(|| wrong("score", "f32"))?;
    let values =
        PairColumns { head: number_in(fields, "head")?, tail: number_in(fields, "tail")?, score };
    Ok(ListColumn { offsets: list.offsets().clone(), values })
}
