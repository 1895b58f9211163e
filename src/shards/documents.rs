//! Documents as one Parquet table with typed columns, for `convert` and for people who work in
//! pyarrow, pandas or Hugging Face datasets.
//!
//! It holds everything that a [`Document`] does, but for where it was read. Not for: training,
//! which takes shards of tokenised documents.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::Field;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::arrays::{
    Built, flags, lists, numbers, numbers_of, optional_lists, optional_texts, range, strings,
    structs, texts, texts_of, u32s,
};
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
        let mut intake = Intake::new(options);
        let mut row = 0;
        for group in 0..table.num_row_groups() {
            for raw in table.guarded(group, || unchecked(&table.batch(group, &|_| true)?))? {
                let check = Check {
                    file: path,
                    row,
                    relations: options.relations.as_ref(),
                    fields: &PLAIN_FIELDS,
                    repeats: Repeats::Merge,
                };
                row += 1;
                intake.take(check.document(raw), each)?;
            }
        }
        intake.finish(Ok(()))
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

fn columns_of(documents: &[Document]) -> Result<Vec<ArrayRef>, ArrowError> {
    let sentences =
        |sentences: &[&Vec<String>]| lists(sentences, |words| words, |words| Ok(texts(words)));
    Ok(vec![
        texts(documents.iter().map(|document| &document.title)),
        lists(documents, |document| &document.sentences, sentences)?,
        lists(documents, |document| &document.entities, entities)?,
        optional_lists(documents, |document| document.facts.as_deref(), facts)?,
        optional_lists(documents, |document| document.candidates.as_deref(), candidates)?,
    ])
}

fn entities(entities: &[&Entity]) -> Built {
    let ids = optional_texts(entities.iter().map(|entity| entity.knowledge_base_id.as_deref()));
    let mentions = lists(entities, |entity| &entity.mentions, mentions)?;
    structs(schema::identified_entity_fields(), vec![ids, mentions])
}

fn mentions(mentions: &[&Mention]) -> Built {
    let columns = vec![
        texts(mentions.iter().map(|mention| &mention.name)),
        u32s(mentions.iter().map(|mention| mention.sentence as u32)),
        u32s(mentions.iter().map(|mention| mention.start as u32)),
        u32s(mentions.iter().map(|mention| mention.end as u32)),
        texts(mentions.iter().map(|mention| &mention.entity_type)),
    ];
    structs(schema::typed_mention_fields(), columns)
}

fn facts(facts: &[&Fact]) -> Built {
    let sentences =
        |sentences: &[&usize]| Ok(u32s(sentences.iter().map(|sentence| **sentence as u32)));
    let columns = vec![
        u32s(facts.iter().map(|fact| fact.head as u32)),
        u32s(facts.iter().map(|fact| fact.tail as u32)),
        texts(facts.iter().map(|fact| &fact.relation)),
        lists(facts, |fact| &fact.evidence, sentences)?,
    ];
    structs(schema::named_fact_fields(), columns)
}

fn candidates(pairs: &[&Candidate]) -> Built {
    let columns = vec![
        u32s(pairs.iter().map(|pair| pair.head as u32)),
        u32s(pairs.iter().map(|pair| pair.tail as u32)),
        flags(pairs.iter().map(|pair| pair.excluded)),
    ];
    structs(schema::candidate_fields(), columns)
}

/// The rows of a row group, whose columns are converted to the types of
/// [`schema::document_schema`].
fn unchecked(batch: &RecordBatch) -> Result<Vec<Unchecked>, String> {
    let column = |wanted: &Field| {
        let name = wanted.name();
        let array = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(array, wanted.data_type(), &options)
            .map_err(|error| format!("column `{name}` is of another type: {error}"))
    };
    let schema = schema::document_schema();
    let columns =
        schema.fields().iter().map(|field| column(field)).collect::<Result<Vec<_>, _>>()?;
    let titles = columns[0].as_string::<i32>();
    let [sentences, entities, facts, candidates] = [1, 2, 3, 4].map(|at| columns[at].as_list());
    let row = |row: usize| Unchecked {
        title: titles.value(row).to_owned(),
        sentences: range(sentences, row)
            .map(|at| texts_of(sentences.values().as_list(), at))
            .collect(),
        entities: items(entities, row, entity),
        facts: facts.is_valid(row).then(|| items(facts, row, fact)),
        candidates: candidates.is_valid(row).then(|| items(candidates, row, pair)),
    };
    Ok((0..titles.len()).map(row).collect())
}

/// The structs in the list of a row.
fn items<T>(list: &ListArray, row: usize, of: fn(&StructArray, usize) -> T) -> Vec<T> {
    let fields = list.values().as_struct();
    range(list, row).map(|at| of(fields, at)).collect()
}

fn number(fields: &StructArray, name: &str, at: usize) -> i64 {
    numbers(fields, name).value(at).into()
}

fn text(fields: &StructArray, name: &str, at: usize) -> String {
    strings(fields, name).value(at).to_owned()
}

fn entity(fields: &StructArray, at: usize) -> UncheckedEntity {
    let id = fields["id"].is_valid(at).then(|| text(fields, "id", at));
    UncheckedEntity { id, mentions: items(fields["mentions"].as_list(), at, mention) }
}

fn mention(fields: &StructArray, at: usize) -> UncheckedMention {
    UncheckedMention {
        name: text(fields, "name", at),
        sentence: number(fields, "sentence", at),
        span: vec![number(fields, "start", at), number(fields, "end", at)],
        entity_type: text(fields, "type", at),
    }
}

fn fact(fields: &StructArray, at: usize) -> UncheckedFact {
    let evidence = numbers_of(fields["evidence"].as_list(), at);
    UncheckedFact {
        head: number(fields, "head", at),
        tail: number(fields, "tail", at),
        relation: text(fields, "relation", at),
        evidence: evidence.into_iter().map(i64::from).collect(),
    }
}

fn pair(fields: &StructArray, at: usize) -> UncheckedPair {
    UncheckedPair {
        head: number(fields, "head", at),
        tail: number(fields, "tail", at),
        excluded: fields["excluded"].as_boolean().value(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Format;
    use crate::corpus::formats::OnError;
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

    #[test]
    fn documents_are_read_in_every_codec() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        write(&path, &documents());
        for (codec, bytes) in crate::shards::testing::in_every_codec(&path) {
            let path = folder.path().join("again.parquet");
            fs_err::write(&path, bytes).unwrap();
            same(read(&path).unwrap_or_else(|error| panic!("{codec}: {error}")), &documents());
        }
    }

    #[test]
    fn documents_that_cannot_be_read_are_skipped_where_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let mut broken = documents();
        broken[3].entities[0].mentions[0].end = 9;
        write(&path, &broken);
        let read = ReadOptions { on_error: OnError::Skip, ..ReadOptions::default() };
        let summary = DocumentTable.read(&path, &read, &mut |_| Ok(())).unwrap();
        assert_eq!(summary.documents, broken.len() - 1);
        assert_eq!(summary.left_out[0].error.row, Some(3));
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
