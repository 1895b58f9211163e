//! Documents from one format into another, and what the other has no place for.

use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Serialize;

use crate::Result;
use crate::base::say;
use crate::corpus::Format;
use crate::corpus::formats::{ReadOptions, list_left_out};
use crate::shards::DocumentTable;

/// A format that [`convert`] reads or writes: those of [`Format::all`], and Parquet tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentForm(pub Format);

impl ValueEnum for DocumentForm {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<DocumentForm>> = LazyLock::new(|| {
            let formats = Format::all().iter().copied().chain(Format::of(&DocumentTable));
            formats.map(DocumentForm).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        self.0.to_possible_value()
    }
}

/// What was converted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConvertReport {
    /// Documents.
    pub documents: usize,
    /// Documents and relations that were left out because they cannot be read.
    pub left_out: usize,
    /// What the reader left out of good documents, in words.
    pub omissions: Vec<String>,
    /// What the output has no place for, in words; empty where it holds everything that was read.
    pub losses: String,
}

impl fmt::Display for ConvertReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} documents; ", self.documents)?;
        let faulty = format!("{} documents or relations left out", self.left_out);
        let mut lost: Vec<&str> = self.omissions.iter().map(String::as_str).collect();
        lost.extend((self.left_out > 0).then_some(faulty.as_str()));
        lost.extend((!self.losses.is_empty()).then_some(self.losses.as_str()));
        f.write_str(&if lost.is_empty() { "nothing was lost".to_owned() } else { lost.join("; ") })
    }
}

/// Converts a file; the output appears whole or not at all. DocRED's JSON (with this program's
/// fields), JSONL and Parquet hold everything that any format says of a document in words.
///
/// # Errors
/// Those of the reader and of the writer; a recipe error for a format that is only read.
pub fn convert(
    from: DocumentForm,
    input: &Path,
    to: DocumentForm,
    output: &Path,
    read: &ReadOptions,
) -> Result<ConvertReport> {
    let mut writer = to.0.create(output)?;
    let summary = from.0.read(input, read, &mut |document| writer.write(document))?;
    let written = writer.finish()?;
    let warnings = summary.warnings(input).into_iter();
    warnings.for_each(|warning| say(format!("warning: {warning}")));
    list_left_out(&summary.left_out, output)?;
    Ok(ConvertReport {
        documents: written.documents,
        left_out: summary.left_out.len(),
        omissions: summary.omissions(),
        losses: written.losses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::formats::DocredWriter;
    use crate::corpus::{Candidate, Document, Entity, Fact, Mention};

    fn form(name: &str) -> DocumentForm {
        DocumentForm::from_str(name, false).unwrap()
    }

    fn document() -> Document {
        let entity = |id: &str, sentence: usize, start: usize| Entity {
            mentions: vec![Mention {
                name: id.into(),
                sentence,
                start,
                end: start + 1,
                entity_type: "T".into(),
            }],
            knowledge_base_id: Some(id.into()),
        };
        Document {
            title: "a".into(),
            sentences: vec![vec!["X".into(), "binds".into(), "Y".into()], vec!["Z".into()]],
            entities: vec![entity("X", 0, 0), entity("Y", 0, 2), entity("Z", 1, 0)],
            facts: Some(vec![Fact { head: 0, tail: 1, relation: "R".into(), evidence: vec![] }]),
            candidates: Some(vec![
                Candidate { head: 0, tail: 1, excluded: false },
                Candidate { head: 0, tail: 2, excluded: true },
            ]),
            ..Document::default()
        }
    }

    fn read(form: DocumentForm, path: &Path) -> Vec<Document> {
        let mut documents = Vec::new();
        let mut each = |document: Document| {
            documents
                .push(Document { provenance: crate::corpus::Provenance::default(), ..document });
            Ok(())
        };
        form.0.read(path, &ReadOptions::default(), &mut each).unwrap();
        documents
    }

    #[test]
    fn every_format_has_a_name() {
        let names: Vec<_> = DocumentForm::value_variants()
            .iter()
            .filter_map(|form| Some(form.to_possible_value()?.get_name().to_owned()))
            .collect();
        assert_eq!(
            names,
            [
                "docred",
                "cdr",
                "gda",
                "biored",
                "pubtator",
                "chemdisgene",
                "brat",
                "jsonl",
                "parquet"
            ]
        );
    }

    /// Around all formats and back: nothing is lost of what all of them can say.
    #[test]
    fn a_document_survives_every_format() {
        let folder = tempfile::tempdir().unwrap();
        let forms = [form("docred"), form("cdr"), form("parquet"), form("jsonl"), form("docred")];
        let paths: Vec<_> =
            (0..forms.len()).map(|number| folder.path().join(format!("{number}"))).collect();
        let mut writer = DocredWriter::create(&paths[0]).unwrap();
        writer.write(&document()).unwrap();
        writer.finish().unwrap();
        for (step, pair) in forms.windows(2).enumerate() {
            let report =
                convert(pair[0], &paths[step], pair[1], &paths[step + 1], &ReadOptions::default())
                    .unwrap();
            assert_eq!(report, ConvertReport { documents: 1, ..ConvertReport::default() });
            assert_eq!(read(pair[1], &paths[step + 1]), [document()]);
        }
        assert_eq!(fs_err::read(&paths[0]).unwrap(), fs_err::read(&paths[4]).unwrap());
    }

    /// docs/formats.md, "DocRED and Re-DocRED": mentions of one entity can differ in type. Its
    /// first mention decides for systems, but files keep them all, where they can.
    #[test]
    fn the_type_of_each_mention_survives() {
        let folder = tempfile::tempdir().unwrap();
        let mut mixed = document();
        mixed.entities[0].mentions.push(Mention {
            name: "X".into(),
            sentence: 1,
            start: 0,
            end: 1,
            entity_type: "OTHER".into(),
        });
        let docred = form("docred");
        let paths = ["a.json", "a.parquet", "a.jsonl", "b.json", "b.data"]
            .map(|name| folder.path().join(name));
        let mut writer = DocredWriter::create(&paths[0]).unwrap();
        writer.write(&mixed).unwrap();
        writer.finish().unwrap();
        let forms = [docred, form("parquet"), form("jsonl"), docred];
        for (pair, path) in forms.windows(2).zip(paths.windows(2)) {
            let report =
                convert(pair[0], &path[0], pair[1], &path[1], &ReadOptions::default()).unwrap();
            assert_eq!(
                (report.losses.as_str(), read(pair[1], &path[1])),
                ("", vec![mixed.clone()])
            );
        }
        assert_eq!(fs_err::read(&paths[0]).unwrap(), fs_err::read(&paths[3]).unwrap());
        // EoG's table has one type an entity, and says that it took the first.
        let report =
            convert(docred, &paths[0], form("cdr"), &paths[4], &ReadOptions::default()).unwrap();
        assert!(report.losses.contains("type"), "{report}");
        let types: Vec<String> = read(form("cdr"), &paths[4])[0].entities[0]
            .mentions
            .iter()
            .map(|mention| mention.entity_type.clone())
            .collect();
        assert_eq!(types, ["T", "T"]);
    }

    #[test]
    fn what_the_reader_left_out_is_said_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.json"), folder.path().join("out.json"));
        let told = |labels: &str| {
            let document = format!(
                r#"[{{"title": "a", "sents": [["X", "Y"]], "labels": {labels}, "vertexSet": [
                [{{"name": "X", "sent_id": 0, "pos": [0, 1], "type": "T"}}],
                [{{"name": "Y", "sent_id": 0, "pos": [1, 2], "type": "T"}}]]}}]"#
            );
            fs_err::write(&input, document).unwrap();
            let docred = form("docred");
            convert(docred, &input, docred, &output, &ReadOptions::default()).unwrap().to_string()
        };
        assert_eq!(told(r#"[{"h": 0, "t": 1, "r": "P1"}]"#), "1 documents; nothing was lost");
        assert_eq!(
            told(r#"[{"h": 0, "t": 1, "r": "P1"}, {"h": 1, "t": 0, "r": "NA"}]"#),
            "1 documents; 1 labels that say \"no relation\" (NA) were left out"
        );
        fs_err::write(folder.path().join("in.txt"), "Ada left .").unwrap();
        fs_err::write(folder.path().join("in.ann"), "T1\tPER 0 3\tAda\n#1\tnote\n").unwrap();
        let brat = folder.path().join("in.txt");
        let report =
            convert(form("brat"), &brat, form("docred"), &output, &ReadOptions::default()).unwrap();
        assert_eq!(
            report.to_string(),
            "1 documents; 1 lines that are no mention, relation or equivalence were passed over"
        );
        let all = ConvertReport {
            documents: 3,
            left_out: 2,
            omissions: vec!["1 a".into(), "2 b".into()],
            losses: "3 c".into(),
        };
        let text = "3 documents; 1 a; 2 b; 2 documents or relations left out; 3 c";
        assert_eq!(all.to_string(), text);
    }

    #[test]
    fn a_failed_conversion_leaves_nothing_and_some_formats_are_only_read() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.json"), folder.path().join("out"));
        fs_err::write(&input, "[{}]").unwrap();
        for to in [form("parquet"), form("jsonl"), form("gda")] {
            let error =
                convert(form("docred"), &input, to, &output, &ReadOptions::default()).unwrap_err();
            assert_eq!(error.exit_code(), 65);
        }
        let error =
            convert(form("docred"), &input, form("pubtator"), &output, &ReadOptions::default())
                .unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
    }
}
