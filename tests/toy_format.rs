//! A format from outside the library, added by one line, is read by name wherever a format is
//! named: on the command line, in a recipe, by `prepare` and by `convert`.

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;
use docre::{
    AtomicFile, Document, DocumentForm, DocumentFormat, DocumentStore, DocumentWriter, Entity,
    Fact, Format, InputFile, Intake, Mention, OtherRows, PrepareJob, Provenance, ReadOptions,
    ReadSummary, Recipe, Result, StoreOptions, WriteSummary, convert, relations_in,
};

/// A line is a document of one sentence: head, relation, tail.
struct Toy;

impl DocumentFormat for Toy {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[("toy", "Three words a line")]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        let mut intake = Intake::new(options);
        for (row, line) in fs_err::read_to_string(path)?.lines().enumerate() {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let entity = |at: usize| {
                let name = words[at].clone();
                let mention =
                    Mention { name, sentence: 0, start: at, end: at + 1, entity_type: "X".into() };
                Entity { knowledge_base_id: None, mentions: vec![mention] }
            };
            let relation = words[1].clone();
            let document = Document {
                title: line.to_owned(),
                entities: vec![entity(0), entity(2)],
                facts: Some(vec![Fact { head: 0, tail: 1, relation, evidence: vec![] }]),
                sentences: vec![words],
                candidates: None,
                provenance: Provenance { file: path.to_owned(), row },
            };
            intake.take(Ok((document, OtherRows::default())), each)?;
        }
        intake.finish(Ok(()))
    }

    fn create(&self, path: &Path) -> Option<Result<Box<dyn DocumentWriter>>> {
        Some(AtomicFile::create(path).map(|file| Box::new(ToyWriter(file, 0)) as _))
    }
}

struct ToyWriter(AtomicFile, usize);

impl DocumentWriter for ToyWriter {
    fn write(&mut self, document: Document) -> Result<()> {
        self.1 += 1;
        Ok(writeln!(self.0, "{}", document.sentences[0].join(" "))?)
    }

    fn finish(self: Box<Self>) -> Result<WriteSummary> {
        self.0.finish()?;
        Ok(WriteSummary { documents: self.1, losses: "types were lost".into() })
    }
}

#[test]
fn a_format_from_outside_is_prepared_and_converted_by_its_name() {
    Format::add(&Toy);

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs_err::write(path("a.toy"), "Ada knows Bob\nEve knows Ada\n").unwrap();
    fs_err::write(path("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nada\nbob\n").unwrap();

    let format = Format::from_str("toy", false).unwrap();
    let recipe = "[data]\nformat = \"toy\"\nhuman = [\"a.toy\"]\n";
    assert_eq!(Recipe::parse(recipe, "r.toml", &[]).unwrap().data.format, format);

    let inputs = InputFile::all(&[path("a.toy")], format);
    let read = ReadOptions::default();
    let job = PrepareJob {
        inputs: &inputs,
        read: &read,
        output: &path("shards"),
        tokenizer: &path("vocab.txt"),
        lowercase: Some(true),
        relations: &relations_in(&inputs, &read).unwrap(),
        exclude: None,
        elsewhere: None,
        only: None,
        shard_rows: None,
    };
    let report = job.run().unwrap();
    assert_eq!((report.manifest.documents, report.manifest.facts), (2, 2));
    let store = DocumentStore::open(&path("shards"), StoreOptions::default()).unwrap();
    assert_eq!(store.get(1).title, "Eve knows Ada");

    let form = |name: &str| DocumentForm::from_str(name, false).unwrap();
    for (from, to, input, output) in
        [("toy", "jsonl", "a.toy", "a.jsonl"), ("jsonl", "toy", "a.jsonl", "b.toy")]
    {
        let report = convert(form(from), &path(input), form(to), &path(output), &read).unwrap();
        assert_eq!((report.documents, report.losses.is_empty()), (2, to == "jsonl"));
    }
    assert_eq!(fs_err::read(path("a.toy")).unwrap(), fs_err::read(path("b.toy")).unwrap());
}
