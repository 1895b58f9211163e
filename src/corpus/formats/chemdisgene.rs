//! ChemDisGene: abstracts annotated by people (a JSON array) or labelled from CTD (PubTator,
//! relations in a table beside it).
//!
//! Chemicals, diseases and genes are asked about as chemical → disease, chemical → gene and gene →
//! disease, in whichever order a relation names its two identifiers. A distant relation that no
//! mentioned pair of these types bears is left out and counted, and so is a row that repeats
//! others. Other entities (species, cell lines, variants) are left out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::annotated::{Annotated, IdRelation, SpanMention, Unmentioned};
use super::format::DocumentFormat;
use super::pubtator;
use super::reading::{Intake, OnError, ReadOptions, ReadSummary, check_relations};
use crate::base::records::{Record, Unit, read_all_records, read_records};
use crate::base::{json_stream, text_file};
use crate::corpus::check::OtherRows;
use crate::corpus::{Document, PairTypes};
use crate::{DataError, Error, Result};

/// ChemDisGene: the JSON of `human_*.json`, or PubTator text whose relations are in
/// `…_relationships.tsv` beside `….pubtator` (both plain or gzip). A file that is not called
/// `.json` is JSON if it begins with `[`.
#[derive(Debug)]
pub(super) struct Chemdisgene;

impl DocumentFormat for Chemdisgene {
    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &[(
            "chemdisgene",
            "ChemDisGene: human annotation (JSON) or distant labels (PubTator with a table of \
             relations)",
        )]
    }

    fn read(
        &self,
        path: &Path,
        options: &ReadOptions,
        each: &mut dyn FnMut(Document) -> Result<()>,
    ) -> Result<ReadSummary> {
        let types = PairTypes::listed(&[
            ("Chemical", "Disease"),
            ("Chemical", "Gene"),
            ("Gene", "Disease"),
        ]);
        let mut intake = Intake::new(options);
        if unpacked_name(path).ends_with(".json") || text_file::first_byte(path)? == Some(b'[') {
            let unmentioned = match options.on_error {
                OnError::Stop => Unmentioned::Refuse,
                OnError::Skip => Unmentioned::List,
            };
            let work = |row: usize, raw: Abstract| {
                let read = raw.annotated(unmentioned).document(path, row, &types)?;
                check_relations(&read.0, options.relations.as_ref())?;
                Ok(read)
            };
            let mut take = |_, read| intake.take(read, each);
            let outcome = json_stream::read_array_with(path, &work, &mut take).map(drop);
            intake.finish(outcome)
        } else {
            let (table, note) = relationships(path)?;
            note.into_iter().for_each(|note| intake.note(note));
            let mut take = |read| intake.take(read, each);
            let outcome = read_distant(path, &table, &types, options, &mut take);
            intake.finish(outcome)
        }
    }
}

/// Reads PubTator text with the relations of its table, which must all be of abstracts that the
/// text has.
fn read_distant(
    path: &Path,
    table: &Path,
    types: &PairTypes,
    options: &ReadOptions,
    take: &mut dyn FnMut(Result<(Document, OtherRows)>) -> Result<()>,
) -> Result<()> {
    let relations = RelationTable::load(table)?;
    let work = |record: Record<'_>| {
        let mut annotated = pubtator::parse(path, record)?;
        annotated.relations.extend(relations.of(annotated.id));
        annotated.unmentioned = Unmentioned::Count;
        let read = annotated.document(path, record.row, types)?;
        check_relations(&read.0, options.relations.as_ref())?;
        Ok(read)
    };
    // Only abstracts that the table names are noted: the text may hold far more.
    let mut found = std::collections::HashSet::new();
    let mut faulty = false;
    read_all_records(path, Unit::Paragraph, &work, &mut |read| {
        let title = match &read {
            Ok((document, _)) => Some(document.title.as_str()),
            Err(Error::Data(error)) => error.title.as_deref(),
            Err(_) => None,
        };
        let known = title.and_then(|title| relations.by_id.get_key_value(title));
        faulty |= read.is_err() && title.is_none();
        found.extend(known.map(|(id, _)| id.as_str()));
        take(read)
    })?;
    // The relations may be those of an abstract whose identifier cannot be read.
    if faulty {
        return Ok(());
    }
    let foreign = relations.by_id.iter().filter(|(id, _)| !found.contains(id.as_str()));
    match foreign.min_by_key(|(_, rows)| rows[0].0) {
        None => Ok(()),
        Some((id, rows)) => Err(DataError::new(
            table,
            format!("relations of `{id}`, which is not in {}", path.display()),
        )
        .row(rows[0].0)
        .hint("do the two files belong together?")
        .into()),
    }
}

/// The name of a file without `.gz`.
fn unpacked_name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(".gz").unwrap_or(name)
}

/// The table of relations that belongs to a file of texts, and what to say if several could be
/// meant: the first of the usual names that exists is taken.
fn relationships(path: &Path) -> Result<(PathBuf, Option<String>)> {
    let name = unpacked_name(path);
    let stem = name.strip_suffix(".pubtator").or_else(|| name.strip_suffix(".txt")).unwrap_or(name);
    let mut names = vec![format!("{stem}_relationships.tsv")];
    // The release: dev_abstracts.txt with dev_relationships.tsv, and abstracts.txt with
    // approved_relns_ctd_v1.tsv, or with the relations derived from CTD.
    if let Some(split) = stem.strip_suffix("abstracts") {
        names.push(format!("{split}relationships.tsv"));
        if split.is_empty() {
            names.extend(["approved_relns_ctd_v1.tsv", "ctd_derived_relns_v1.tsv"].map(Into::into));
        }
    }
    let found: Vec<PathBuf> = names
        .iter()
        .flat_map(|name| [format!("{name}.gz"), name.clone()])
        .map(|name| path.with_file_name(name))
        .filter(|table| table.exists())
        .collect();
    let Some(first) = found.first() else {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}[.gz]`")).collect();
        let problem =
            format!("the table of relations is not in the same folder: {}", names.join(" or "));
        return Err(DataError::new(path, problem)
            .hint("put it beside the texts; only texts without labels are --format pubtator")
            .into());
    };
    let note = (found.len() > 1).then(|| {
        let others = found.iter().skip(1).map(|table| table.display().to_string());
        let others = others.collect::<Vec<_>>().join(", ");
        format!("the relations are those of {}, not of {others}", first.display())
    });
    Ok((first.clone(), note))
}

/// RelationTable by abstract, each with its row: (row, relation, identifiers).
struct RelationTable {
    by_id: HashMap<String, Vec<(usize, String, [String; 2])>>,
}

impl RelationTable {
    fn load(path: &Path) -> Result<Self> {
        let mut by_id: HashMap<String, Vec<_>> = HashMap::new();
        let parse = |record: Record<'_>| match record.text.split('\t').collect::<Vec<_>>()[..] {
            [id, relation, first, second] if ![id, relation, first, second].contains(&"") => Ok((
                id.to_owned(),
                (record.row, relation.to_owned(), [first.to_owned(), second.to_owned()]),
            )),
            ref columns => Err(DataError::new(
                path,
                format!("{} columns; a relation has 4, none of them empty", columns.len()),
            )
            .row(record.row)
            .hint(
                "a row is an abstract's identifier, a relation and two identifiers, separated by \
                 tabs; the table has no header line",
            )
            .into()),
        };
        read_records(path, Unit::Line, &parse, &mut |(id, row)| {
            by_id.entry(id).or_default().push(row);
            Ok(())
        })?;
        Ok(Self { by_id })
    }

    fn of(&self, id: &str) -> impl Iterator<Item = IdRelation<'_>> {
        self.by_id.get(id).into_iter().flatten().map(|(row, relation, [first, second])| {
            IdRelation {
                relation,
                ids: [first, second],
                field: format!("relationships, row {row}"),
            }
        })
    }
}

#[derive(Deserialize)]
struct Abstract {
    docid: String,
    title: String,
    #[serde(rename = "abstract")]
    body: String,
    entity: Vec<AbstractEntity>,
    #[serde(default)]
    relation: Vec<AbstractRelation>,
}

#[derive(Deserialize)]
struct AbstractEntity {
    start: i64,
    end: i64,
    mention: String,
    #[serde(rename = "type")]
    entity_type: String,
    id: String,
}

#[derive(Deserialize)]
struct AbstractRelation {
    #[serde(rename = "type")]
    relation: String,
    subj: String,
    obj: String,
}

impl Abstract {
    fn annotated(&self, unmentioned: Unmentioned) -> Annotated<'_> {
        let mentions = self.entity.iter().enumerate().map(|(at, entity)| SpanMention {
            start: entity.start,
            end: entity.end,
            name: &entity.mention,
            entity_type: &entity.entity_type,
            ids: &entity.id,
            field: format!("entity[{at}]"),
        });
        let relations = self.relation.iter().enumerate().map(|(at, relation)| IdRelation {
            relation: &relation.relation,
            ids: [&relation.subj, &relation.obj],
            field: format!("relation[{at}]"),
        });
        let (mentions, relations) = (mentions.collect(), relations.collect());
        Annotated {
            id: &self.docid,
            title: &self.title,
            body: &self.body,
            mentions,
            relations,
            unmentioned,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(path: &Path) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        Chemdisgene.read(path, &ReadOptions::default(), &mut |document| {
            documents.push(document);
            Ok(())
        })?;
        Ok(documents)
    }

    #[test]
    fn both_forms_give_the_same_document() {
        let folder = tempfile::tempdir().unwrap();
        let (human, distant) = (folder.path().join("human.json"), folder.path().join("d.pubtator"));
        let mention = |start: usize, end: usize, name: &str, kind: &str, id: &str| {
            json!({
                "start": start, "end": end, "mention": name, "type": kind, "id": id,
            })
        };
        let entities = json!([
            mention(0, 4, "ABC1", "Gene", "7;8"),
            mention(11, 15, "pain", "Disease", "MESH:D1"),
            mention(19, 23, "mice", "Species", "7"),
            mention(25, 32, "Aspirin", "Chemical", "MESH:D2"),
            mention(33, 34, "X", "Chemical", "-"),
        ]);
        let relations = json!([
            {"type": "gd", "subj": "MESH:D1", "obj": "8"},
            {"type": "cg", "subj": "MESH:D2", "obj": "7|8"},
        ]);
        let text = json!([{
            "docid": "1", "title": "ABC1 eases pain in mice.", "abstract": "Aspirin X.",
            "entity": entities, "relation": relations,
        }]);
        fs_err::write(&human, text.to_string()).unwrap();
        let lines: Vec<String> = entities
            .as_array()
            .unwrap()
            .iter()
            .map(|e| {
                format!(
                    "1\t{}\t{}\t{}\t{}\t{}",
                    e["start"],
                    e["end"],
                    e["mention"].as_str().unwrap(),
                    e["type"].as_str().unwrap(),
                    e["id"].as_str().unwrap()
                )
            })
            .collect();
        fs_err::write(
            &distant,
            format!(
                "1|t|ABC1 eases pain in mice.\n1|a|Aspirin X.\n{}\n\n2|t|Bare title\n",
                lines.join("\n")
            ),
        )
        .unwrap();
        let missing = read(&distant).unwrap_err();
        assert!(missing.to_string().contains("d_relationships.tsv"), "{missing}");
        let table = folder.path().join("d_relationships.tsv");
        fs_err::write(&table, "1\tgd\tMESH:D1\t8\n1\tcg\tMESH:D2\t7|8\n").unwrap();
        let (human, distant) = (read(&human).unwrap(), read(&distant).unwrap());
        assert_eq!(distant.len(), 2);
        assert_eq!(distant[1].sentences, [["Bare", "title"]]);
        assert_eq!(
            (&human[0].entities, &human[0].facts, &human[0].sentences),
            (&distant[0].entities, &distant[0].facts, &distant[0].sentences)
        );
        // Entities: gene 7, gene 8, the disease, the chemical; the species also called 7 is another
        // thing.
        let fact = |head, tail, relation: &str| crate::corpus::Fact {
            head,
            tail,
            relation: relation.into(),
            evidence: vec![],
        };
        assert_eq!(human[0].facts(), [fact(1, 2, "gd"), fact(3, 0, "cg"), fact(3, 1, "cg")]);
        assert_eq!(human[0].asked_pairs(), [(0, 2), (3, 0), (1, 2), (3, 1), (3, 2)]);
        // A row that says the same again, in whichever order, is counted; one that adds a fact is
        // not.
        fs_err::write(
            &table,
            "1\tgd\tMESH:D1\t8\n1\tgd\t8\tMESH:D1\n1\tgd\tMESH:D1\t7;8\n1\tgd\tMESH:D1\t7\n",
        )
        .unwrap();
        let summary = Chemdisgene
            .read(&folder.path().join("d.pubtator"), &ReadOptions::default(), &mut |_| Ok(()))
            .unwrap();
        assert_eq!((summary.facts, summary.duplicate_facts), (2, 2));
        fs_err::write(&table, "1\tgd\tMESH:D1\t8\n9\tcg\tMESH:D2\t7|8\n").unwrap();
        let foreign = read(&folder.path().join("d.pubtator")).unwrap_err();
        assert!(foreign.to_string().contains("row 1: relations of `9`"), "{foreign}");
    }

    /// By its name: what stands in a broken or compressed file is the matter of its reader.
    #[test]
    fn json_is_told_by_its_name_and_broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |name: &str, bytes: &[u8], part: &str| {
            let path = folder.path().join(name);
            fs_err::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.exit_code() == 65 && error.hint().is_some(), "{name}: {error}");
            assert!(
                error.to_string().contains(name) && error.to_string().contains(part),
                "{name}: {error}"
            );
        };
        refused("object.json", b"{\"docid\": \"1\"}", "missing field `title`");
        refused("cut.json.gz", b"\x1f\x8b\x08\x00\x00", "cannot be unpacked");
        refused("plain.pubtator.gz", b"1|t|A title\n", "plain_relationships.tsv");
        refused("other.txt", b"{\"docid\": \"1\"}", "other_relationships.tsv");
        let table = folder.path().join("texts_relationships.tsv");
        let text = folder.path().join("texts.pubtator");
        fs_err::write(&text, "1|t|A title\n").unwrap();
        for row in ["1\tgd\tMESH:D1", "1\tgd\t\t8", "1\tgd\tMESH:D1\t8\t9"] {
            fs_err::write(&table, format!("1\tgd\tMESH:D1\t8\n{row}\n")).unwrap();
            let error = read(&text).unwrap_err();
            assert!(error.exit_code() == 65 && error.hint().is_some(), "{error}");
            assert!(error.to_string().contains("texts_relationships.tsv, row 1"), "{error}");
        }
        let unnamed = folder.path().join("human");
        fs_err::write(&unnamed, "\u{feff}[]").unwrap();
        assert!(read(&unnamed).unwrap().is_empty());
    }

    #[test]
    fn the_names_of_the_release_are_known() {
        for (text, table) in [
            ("dev_abstracts.txt", "dev_relationships.tsv"),
            ("dev_abstracts.txt", "dev_abstracts_relationships.tsv"),
            ("abstracts.txt", "approved_relns_ctd_v1.tsv"),
            ("abstracts.txt.gz", "relationships.tsv"),
            ("abstracts.txt", "ctd_derived_relns_v1.tsv.gz"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            fs_err::write(path(text), "1|t|A title\n").unwrap();
            let error = read(&path(text)).unwrap_err();
            assert!(error.to_string().contains(table.trim_end_matches(".gz")), "{error}");
            fs_err::write(path(table), "").unwrap();
            assert_eq!(read(&path(text)).unwrap().len(), 1, "{text} with {table}");
            fs_err::write(path("abstracts_relationships.tsv.gz"), "").unwrap();
            fs_err::write(path("dev_abstracts_relationships.tsv.gz"), "").unwrap();
            let options = ReadOptions::default();
            let summary = Chemdisgene.read(&path(text), &options, &mut |_| Ok(())).unwrap();
            assert!(summary.notes[0].contains(table), "{:?}", summary.notes);
        }
    }

    #[test]
    #[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
    fn real_files_are_read_whole() {
        let shared = crate::reference_data();
        // Distinct rows, and those that repeat one of them. Relations of composite identifiers are
        // one fact for each of their parts, so there can be more facts than rows.
        let files = [
            ("distant_dev.pubtator.gz", 1_521, 3_289, 2),
            ("distant_test.pubtator.gz", 1_668, 4_303, 0),
            ("human_train.json", 316, 2_210, 0),
        ];
        for (name, documents, rows, repeated) in files {
            let path = shared.join("data/chemdisgene").join(name);
            let summary =
                Chemdisgene.read(&path, &ReadOptions::default(), &mut |_| Ok(())).unwrap();
            assert_eq!(
                (summary.documents, summary.duplicate_facts),
                (documents, repeated),
                "{name}"
            );
            assert!(
                summary.facts + summary.unplaced_facts >= rows && summary.unplaced_facts < 20,
                "{name}: {summary:?}"
            );
        }
    }
}
