use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::pipeline::known_facts;
use crate::shards::StoreOptions;

/// A document in DocRED's form that states one fact between two names of its own.
fn document(title: &str) -> serde_json::Value {
    let mention = |name: &str, at: usize| {
        let pos = [at, at + 1];
        json!([{"name": name, "pos": pos, "sent_id": 0, "type": "PER"}])
    };
    let (head, tail) = (format!("{title}-head"), format!("{title}-tail"));
    json!({
        "title": title,
        "sents": [[head, "knows", tail]],
        "vertexSet": [mention(&head, 0), mention(&tail, 2)],
        "labels": [{"h": 0, "t": 1, "r": "P1", "evidence": []}],
    })
}

/// A folder with files of documents and a vocabulary.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &[&str])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "knows"].map(str::to_owned);
        let unused = (0..100).map(|number| format!("[unused{number}]"));
        let pieces: Vec<String> = special.into_iter().chain(unused).collect();
        fs_err::write(folder.path().join("vocab.txt"), pieces.join("\n")).unwrap();
        for (name, titles) in files {
            let documents: Vec<_> = titles.iter().map(|title| document(title)).collect();
            fs_err::write(folder.path().join(name), json!(documents).to_string()).unwrap();
        }
        Self(folder)
    }

    fn recipe(&self, data: &str) -> Recipe {
        let text = format!("[data]\ntokenizer = \"vocab.txt\"\n{data}");
        let folder = self.0.path().display().to_string();
        let placed = text.replace("= \"", &format!("= \"{folder}/"));
        let placed = placed.replace("[\"", &format!("[\"{folder}/"));
        Recipe::parse(&placed, "test", &[]).unwrap()
    }

    fn prepare(&self, data: &str) -> RunData {
        prepare_data(&self.recipe(data), &self.0.path().join("data")).unwrap()
    }
}

fn store(data: &RunData, role: Role) -> DocumentStore {
    DocumentStore::open(&data.need(role).unwrap(), StoreOptions::default()).unwrap()
}

fn titles(data: &RunData, role: Role) -> Vec<String> {
    let store = store(data, role);
    (0..store.len()).map(|row| store.title(row).to_owned()).collect()
}

#[test]
fn titles_that_a_recipe_excludes_may_be_of_faulty_documents() {
    let files = three_files();
    let mut faulty = document("faulty");
    faulty["labels"][0]["t"] = json!(9);
    let all = json!([document("a"), faulty, document("b")]);
    fs_err::write(files.0.path().join("train.json"), all.to_string()).unwrap();
    let folder = files.0.path().join("data");
    let refused = prepare_data(&files.recipe(NAMED), &folder).unwrap_err();
    assert!(refused.to_string().contains("faulty"), "{refused}");
    // A blank keeps the title from being taken for a file.
    let data = files.prepare(&format!("{NAMED}exclude_titles = [ \"faulty\"]"));
    assert_eq!(titles(&data, Role::Human), ["a", "b"]);
}

const NAMED: &str = "human = [\"train.json\"]\ndev = [\"dev.json\"]\ntest = [\"test.json\"]\n";

fn three_files() -> Files {
    Files::new(&[
        ("train.json", &["a", "b", "in dev", "in test"]),
        ("dev.json", &["in dev", "c"]),
        ("test.json", &["in test", "d"]),
    ])
}

#[test]
fn documents_of_dev_and_test_are_not_trained_on() {
    let files = three_files();
    let data = files.prepare(NAMED);
    assert_eq!(titles(&data, Role::Human), ["a", "b"]);
    assert_eq!(trained_on_dev(&store(&data, Role::Human), &store(&data, Role::Dev)), None);
}

#[test]
fn train_on_dev_trains_on_the_documents_of_dev_and_says_so_but_not_on_those_of_test() {
    let files = three_files();
    let data = files.prepare(&format!("{NAMED}train_on_dev = true"));
    assert_eq!(titles(&data, Role::Human), ["a", "b", "in dev", "c"]);
    let told = trained_on_dev(&store(&data, Role::Human), &store(&data, Role::Dev)).unwrap();
    assert!(told.starts_with("2 of the 2 documents of dev are trained on too"), "{told}");
}

#[test]
fn a_file_that_is_named_for_training_and_dev_is_trained_on_once() {
    let files = Files::new(&[("all.json", &["a", "b"]), ("test.json", &["d"])]);
    let data = files.prepare(
        "human = [\"all.json\"]\ndev = [\"all.json\"]\ntest = [\"test.json\"]\ntrain_on_dev = true",
    );
    assert_eq!(titles(&data, Role::Human), ["a", "b"]);
}

#[test]
fn ign_f1_ignores_the_facts_of_the_documents_that_were_trained_on_and_no_others() {
    let files = three_files();
    let data = files.prepare(NAMED);
    let known = |named| known_facts(named, &store(&data, Role::Human)).unwrap();
    let holds = |facts: &crate::eval::FactSet, title: &str| {
        facts.contains(&format!("{title}-head"), &format!("{title}-tail"), "P1")
    };
    let facts = known(None);
    assert_eq!(["a", "in dev", "in test"].map(|title| holds(&facts, title)), [true, false, false]);
    let named = files.0.path().join("dev.json");
    assert_eq!(["a", "in dev"].map(|title| holds(&known(Some(&named)), title)), [false, true]);
}
