//! Documents as one Parquet table with typed columns, for `convert` and for people who work in
//! pyarrow, pandas or Hugging Face datasets.
//!
//! It holds everything that a [`Document`] does, but for where it was read. Not for: training,
//! which takes shards of tokenised documents.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, StringArray, StructArray, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::columns::{list, nullable_list, u32s};
use super::reader::TableReader;
use super::schema;
use super::writer::WholeTable;
use crate::corpus::check::{
    Check, PLAIN_FIELDS, Repeats, Unchecked, UncheckedEntity, UncheckedFact, UncheckedMention,
    UncheckedPair,
};
use crate::corpus::formats::{
    DocumentFormat, DocumentWriter, Intake, ReadOptions, ReadSummary, WriteSummary,
};
use crate::corpus::{Candidate, Document, Entity, Fact, Mention};
use crate::{Error, Result};

/// Documents in a row group.
const GROUP_ROWS: usize = 1_024;

/// Documents as a Parquet table, read row group by row group. Columns of other widths (64-bit
/// numbers, large text) are converted.
#[derive(Debug)]
pub struct DocumentTable;

impl DocumentFormat for DocumentTable {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[("parquet", "A table of typed columns")]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        let table = TableReader::open_alone(path)?;
        let mut intake = Intake::default();
        for group in 0..table.num_row_groups() {
            for raw in table.guarded(group, || {
                DocumentRows::new(&table.batch(group, &[])?).map(|rows| rows.all())
            })? {
                let check = Check {
                    file: path,
                    row: intake.summary.documents,
                    relations: options.relations.as_ref(),
                    fields: &PLAIN_FIELDS,
                    repeats: Repeats::Merge,
                };
                let (document, duplicates) = check.document(raw)?;
                intake.take(&document, duplicates)?;
                each(document)?;
            }
        }
        Ok(intake.summary)
    }

    fn create(&self, path: &Path) -> Option<Result<Box<dyn DocumentWriter>>> {
        let table = WholeTable::create(path, schema::document_schema());
        let writer = |table| DocumentTableWriter { table, group: Vec::new(), documents: 0 };
        Some(table.map(|table| Box::new(writer(table)) as _))
    }
}

struct DocumentTableWriter {
    table: WholeTable,
    group: Vec<Document>,
    documents: usize,
}

impl DocumentTableWriter {
    fn flush(&mut self) -> Result<()> {
        let columns = columns_of(&self.group)
            .map_err(|error| Error::Bug(format!("building a table of documents: {error}")))?;
        self.group.clear();
        self.table.write_group(columns)
    }
}

impl DocumentWriter for DocumentTableWriter {
    fn write(&mut self, document: Document) -> Result<()> {
        self.group.push(document);
        self.documents += 1;
        if self.group.len() == GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<WriteSummary> {
        if !self.group.is_empty() {
            self.flush()?;
        }
        self.table.finish()?;
        Ok(WriteSummary { documents: self.documents, losses: String::new() })
    }
}

fn texts<'a>(values: impl Iterator<Item = &'a String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn columns_of(documents: &[Document]) -> Result<Vec<ArrayRef>, ArrowError> {
    let sentences: Vec<&Vec<String>> =
        documents.iter().flat_map(|document| &document.sentences).collect();
    let words = list(
        sentences.iter().map(|words| words.len()),
        texts(sentences.iter().copied().flatten()),
    )?;
    Ok(vec![
        texts(documents.iter().map(|document| &document.title)),
        list(documents.iter().map(|document| document.sentences.len()), words)?,
        entities(documents)?,
        facts(documents)?,
        candidates(documents)?,
    ])
}

fn entities(documents: &[Document]) -> Result<ArrayRef, ArrowError> {
    let all: Vec<&Entity> = documents.iter().flat_map(|document| &document.entities).collect();
    let mentions: Vec<&Mention> = all.iter().flat_map(|entity| &entity.mentions).collect();
    let numbers =
        |of: fn(&Mention) -> usize| u32s(mentions.iter().map(|mention| of(mention) as u32));
    let columns = vec![
        texts(mentions.iter().map(|mention| &mention.name)),
        numbers(|mention| mention.sentence),
        numbers(|mention| mention.start),
        numbers(|mention| mention.end),
        texts(mentions.iter().map(|mention| &mention.entity_type)),
    ];
    let mentions = StructArray::try_new(schema::typed_mention_fields(), columns, None)?;
    let ids: StringArray = all.iter().map(|entity| entity.knowledge_base_id.as_deref()).collect();
    let mentions = list(all.iter().map(|entity| entity.mentions.len()), Arc::new(mentions))?;
    let structs = StructArray::try_new(
        schema::identified_entity_fields(),
        vec![Arc::new(ids), mentions],
        None,
    )?;
    list(documents.iter().map(|document| document.entities.len()), Arc::new(structs))
}

fn facts(documents: &[Document]) -> Result<ArrayRef, ArrowError> {
    let all: Vec<&Fact> = documents.iter().flat_map(Document::facts).collect();
    let evidence =
        u32s(all.iter().flat_map(|fact| fact.evidence.iter().map(|&sentence| sentence as u32)));
    let columns = vec![
        u32s(all.iter().map(|fact| fact.head as u32)),
        u32s(all.iter().map(|fact| fact.tail as u32)),
        texts(all.iter().map(|fact| &fact.relation)),
        list(all.iter().map(|fact| fact.evidence.len()), evidence)?,
    ];
    let structs = StructArray::try_new(schema::named_fact_fields(), columns, None)?;
    let nulls = NullBuffer::from_iter(documents.iter().map(|document| document.facts.is_some()));
    nullable_list(
        documents.iter().map(|document| document.facts().len()),
        Arc::new(structs),
        Some(nulls),
    )
}

fn candidates(documents: &[Document]) -> Result<ArrayRef, ArrowError> {
    let all: Vec<&Candidate> =
        documents.iter().flat_map(|document| document.candidates.iter().flatten()).collect();
    let excluded = BooleanArray::from_iter(all.iter().map(|pair| Some(pair.excluded)));
    let numbers = |of: fn(&Candidate) -> usize| u32s(all.iter().map(|pair| of(pair) as u32));
    let columns: Vec<ArrayRef> =
        vec![numbers(|pair| pair.head), numbers(|pair| pair.tail), Arc::new(excluded)];
    let structs = StructArray::try_new(schema::candidate_fields(), columns, None)?;
    let nulls =
        NullBuffer::from_iter(documents.iter().map(|document| document.candidates.is_some()));
    let lengths = documents.iter().map(|document| document.candidates.as_ref().map_or(0, Vec::len));
    nullable_list(lengths, Arc::new(structs), Some(nulls))
}

/// The columns of a row group, of the types of [`schema::document_schema`].
struct DocumentRows {
    title: StringArray,
    sentences: ListArray,
    entities: ListArray,
    facts: ListArray,
    candidates: ListArray,
}

impl DocumentRows {
    fn new(batch: &RecordBatch) -> Result<Self, String> {
        let schema = schema::document_schema();
        let column = |name: &str| {
            let array = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
            let wanted =
                schema.field_with_name(name).map_err(|error| error.to_string())?.data_type();
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, wanted, &options)
                .map_err(|error| format!("column `{name}` is of another type: {error}"))
        };
        let lists = |name: &str| column(name).map(|array| array.as_list::<i32>().clone());
        Ok(Self {
            title: column("title")?.as_string::<i32>().clone(),
            sentences: lists("sentences")?,
            entities: lists("entities")?,
            facts: lists("facts")?,
            candidates: lists("candidates")?,
        })
    }

    fn all(&self) -> Vec<Unchecked> {
        (0..self.title.len()).map(|row| self.row(row)).collect()
    }

    fn row(&self, row: usize) -> Unchecked {
        let sentences = self.sentences.values().as_list::<i32>();
        Unchecked {
            title: self.title.value(row).to_owned(),
            sentences: range(&self.sentences, row)
                .map(|at| strings(&sentences.value(at)))
                .collect(),
            entities: rows(&self.entities, row, entity),
            facts: self.facts.is_valid(row).then(|| rows(&self.facts, row, fact)),
            candidates: self.candidates.is_valid(row).then(|| rows(&self.candidates, row, pair)),
        }
    }
}

fn range(list: &ListArray, row: usize) -> Range<usize> {
    list.offsets()[row] as usize..list.offsets()[row + 1] as usize
}

fn rows<T>(list: &ListArray, row: usize, of: fn(&StructArray, usize) -> T) -> Vec<T> {
    let fields = list.values().as_struct();
    range(list, row).map(|at| of(fields, at)).collect()
}

fn strings(array: &ArrayRef) -> Vec<String> {
    let array = array.as_string::<i32>();
    (0..array.len()).map(|at| array.value(at).to_owned()).collect()
}

fn number(fields: &StructArray, column: usize, at: usize) -> i64 {
    let values: &UInt32Array = fields.column(column).as_primitive();
    i64::from(values.value(at))
}

fn text(fields: &StructArray, column: usize, at: usize) -> String {
    fields.column(column).as_string::<i32>().value(at).to_owned()
}

fn entity(fields: &StructArray, at: usize) -> UncheckedEntity {
    let id = fields.column(0).is_valid(at).then(|| text(fields, 0, at));
    UncheckedEntity { id, mentions: rows(fields.column(1).as_list(), at, mention) }
}

fn mention(fields: &StructArray, at: usize) -> UncheckedMention {
    let span = vec![number(fields, 2, at), number(fields, 3, at)];
    UncheckedMention {
        name: text(fields, 0, at),
        sentence: number(fields, 1, at),
        span,
        entity_type: text(fields, 4, at),
    }
}

fn fact(fields: &StructArray, at: usize) -> UncheckedFact {
    let evidence = fields.column(3).as_list::<i32>().value(at);
    let evidence = evidence
        .as_primitive::<arrow::datatypes::UInt32Type>()
        .values()
        .iter()
        .map(|&sentence| i64::from(sentence));
    UncheckedFact {
        head: number(fields, 0, at),
        tail: number(fields, 1, at),
        relation: text(fields, 2, at),
        evidence: evidence.collect(),
    }
}

fn pair(fields: &StructArray, at: usize) -> UncheckedPair {
    UncheckedPair {
        head: number(fields, 0, at),
        tail: number(fields, 1, at),
        excluded: fields.column(2).as_boolean().value(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Format;
    use crate::shards::testing::corpus;

    fn write(path: &Path, documents: &[Document]) {
        let mut writer = DocumentTable.create(path).unwrap().unwrap();
        documents.iter().for_each(|document| writer.write(document.clone()).unwrap());
        assert_eq!(writer.finish().unwrap().documents, documents.len());
    }

    fn read(path: &Path) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        DocumentTable.read(path, &ReadOptions::default(), &mut |document| {
            documents.push(document);
            Ok(())
        })?;
        Ok(documents)
    }

    fn documents() -> Vec<Document> {
        let mut documents = corpus();
        documents[0].facts = None;
        documents[1].candidates = Some(vec![]);
        documents[1].facts = Some(vec![]);
        documents[2].candidates = Some(vec![
            Candidate { head: 0, tail: 1, excluded: false },
            Candidate { head: 1, tail: 0, excluded: true },
        ]);
        documents[3].entities[0].knowledge_base_id = Some("Q64".into());
        documents[3].facts.as_mut().unwrap()[0].evidence = vec![0, 2];
        documents[4] = Document { title: "empty".into(), ..Document::default() };
        documents
    }

    fn same(mut found: Vec<Document>, wanted: &[Document]) {
        found
            .iter_mut()
            .zip(wanted)
            .for_each(|(document, old)| document.provenance = old.provenance.clone());
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/x.parquet");
        write(&path, &documents());
        same(read(&path).unwrap(), &documents());
        assert_eq!(
            fs_err::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary folder is left"
        );
        write(&folder.path().join("none.parquet"), &[]);
        assert_eq!(read(&folder.path().join("none.parquet")).unwrap(), []);
    }

    /// A flipped byte is noticed or changes nothing; a cut file is refused. No panic, no hang.
    #[test]
    fn damaged_tables_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        write(&path, &documents());
        let good = fs_err::read(&path).unwrap();
        let hurt = folder.path().join("hurt.parquet");
        let mut refused = 0;
        for at in (0..good.len()).step_by(3) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            fs_err::write(&hurt, &bytes).unwrap();
            match read(&hurt) {
                Ok(found) => same(found, &documents()),
                Err(error) => {
                    assert_eq!(error.exit_code(), 65, "byte {at}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(refused * 4 > good.len() / 3, "{refused} of {} bytes were noticed", good.len() / 3);
        fs_err::write(&hurt, &good[..good.len() / 2]).unwrap();
        assert_eq!(read(&hurt).unwrap_err().exit_code(), 65);
        assert_eq!(read(&folder.path().join("nowhere")).unwrap_err().exit_code(), 74);
    }

    #[test]
    fn a_table_of_another_form_or_with_broken_references_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let mut broken = documents();
        broken[3].entities[0].mentions[0].end = 9;
        write(&path, &broken);
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("row 3, document `document 3`, field `entities[0].mentions[0].start`"),
            "{error}"
        );
        broken = documents();
        broken[3].title = broken[2].title.clone();
        write(&path, &broken);
        assert!(read(&path).unwrap_err().to_string().contains("used by row 2"));
        let (shards, report) = crate::shards::testing::prepared(folder.path(), "shards", &corpus());
        let error = read(&shards.join(&report.manifest.shards[0].file)).unwrap_err().to_string();
        assert!(error.contains("no column `sentences`"), "{error}");
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn real_documents_survive() {
        let shared = crate::reference_data();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        for (format, name) in [("cdr", "cdr/dev_filter.data"), ("docred", "dwie/dev.json")] {
            let (documents, _) = format
                .parse::<Format>()
                .unwrap()
                .read_all(&shared.join("data").join(name), &ReadOptions::default())
                .unwrap();
            write(&path, &documents);
            same(read(&path).unwrap(), &documents);
        }
    }
}
