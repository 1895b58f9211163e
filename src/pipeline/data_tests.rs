use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::pipeline::training_shards::OpenShards;
use crate::recipe::SourceKind;

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

fn dev(data: &RunData) -> DocumentStore {
    store(data, Role::Dev)
}

fn trained_on(data: &RunData, recipe: &Recipe) -> OpenShards {
    OpenShards::open(&data.training(&recipe.data).unwrap(), recipe.data.memory()).unwrap()
}

fn titles(data: &RunData, role: Role) -> Vec<String> {
    titles_of(&store(data, role))
}

fn titles_of(store: &DocumentStore) -> Vec<String> {
    (0..store.len()).map(|row| store.title(row)).collect()
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
    assert_eq!(trained_on(&data, &files.recipe(NAMED)).trained_on_dev(&dev(&data)), None);
}

#[test]
fn train_on_dev_trains_on_the_documents_of_dev_and_says_so_but_not_on_those_of_test() {
    let files = three_files();
    let named = format!("{NAMED}train_on_dev = true");
    let data = files.prepare(&named);
    assert_eq!(titles(&data, Role::Human), ["a", "b", "in dev", "c"]);
    let told = trained_on(&data, &files.recipe(&named)).trained_on_dev(&dev(&data)).unwrap();
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
    let known = |named| trained_on(&data, &files.recipe(NAMED)).known_facts(named).unwrap();
    let holds = |facts: &crate::eval::FactSet, title: &str| {
        facts.contains(&format!("{title}-head"), &format!("{title}-tail"), "P1")
    };
    let facts = known(None);
    assert_eq!(["a", "in dev", "in test"].map(|title| holds(&facts, title)), [true, false, false]);
    let named = files.0.path().join("dev.json");
    assert_eq!(["a", "in dev"].map(|title| holds(&known(Some(&named)), title)), [false, true]);
}

/// `name` of a file and of the source it becomes.
fn source(name: &str, kind: &str, weight: f64) -> String {
    // A blank keeps name and kind from being taken for files.
    format!(
        "[[data.source]]\nname =  \"{name}\"\nfiles = [\"{name}.json\"]\nkind =  \"{kind}\"\n\
         weight = {weight}\n"
    )
}

fn with_sources() -> (Files, String) {
    let files = Files::new(&[
        ("train.json", &["a", "b", "in dev"]),
        ("dev.json", &["in dev"]),
        ("test.json", &["in test"]),
        ("far.json", &["a", "x", "y", "y2", "in test"]),
        ("machine.json", &["b", "x", "z", "in dev"]),
        ("checked.json", &["z", "w"]),
    ]);
    let sources = [source("far", "distant", 0.5), source("machine", "llm", 0.2)].concat();
    (files, format!("{NAMED}{sources}{}", source("checked", "reviewed", 2.0)))
}

#[test]
fn a_title_of_several_sources_stays_with_annotators_or_the_better_kind() {
    let (files, named) = with_sources();
    let (data, recipe) = (files.prepare(&named), files.recipe(&named));
    let training = data.training(&recipe.data).unwrap();
    let shown: Vec<_> = training.iter().map(|each| (each.label(), each.weight)).collect();
    let expected = [
        ("human", 1.0),
        ("far (distant)", 0.5),
        ("machine (llm)", 0.2),
        ("checked (reviewed)", 2.0),
    ];
    assert_eq!(shown, expected.map(|(label, weight)| (label.to_owned(), weight)));
    assert_eq!((training[0].kind, training[1].kind), (None, Some(SourceKind::Distant)));
    let open = OpenShards::open(&training, StoreOptions::MEMORY).unwrap();
    let titles: Vec<Vec<String>> = open.stores().iter().map(titles_of).collect();
    assert_eq!(titles, [vec!["a", "b"], vec!["y", "y2"], vec!["x"], vec!["z", "w"]]);
    // A second start finds everything there.
    let again = files.prepare(&named).training(&recipe.data).unwrap();
    assert_eq!(again, training);
}

#[test]
fn known_facts_are_those_of_all_sources() {
    let (files, named) = with_sources();
    let data = files.prepare(&named);
    let facts = trained_on(&data, &files.recipe(&named)).known_facts(None).unwrap();
    let holds =
        |title: &str| facts.contains(&format!("{title}-head"), &format!("{title}-tail"), "P1");
    assert_eq!(["a", "y", "x", "w", "in dev"].map(holds), [true, true, true, true, false]);
}

#[test]
fn sources_alone_can_be_trained_on_and_nothing_cannot() {
    let (files, named) = with_sources();
    let named = named.replace("human = [\"train.json\"]\n", "");
    let (data, recipe) = (files.prepare(&named), files.recipe(&named));
    assert_eq!(data.training(&recipe.data).unwrap().len(), 3);
    let none = files.recipe("dev = [\"dev.json\"]\n");
    let error = data.training(&none.data).unwrap_err();
    assert!(error.to_string().contains("no human documents"), "{error}");
}

#[test]
fn a_number_of_documents_is_part_of_every_larger_one() {
    let all: Vec<String> = (0..40).map(|number| format!("title {number}")).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let chosen = |number: usize, salt: &str| -> Vec<String> {
        let files = Files::new(&[
            ("train.json", &names),
            ("dev.json", &["title 3", "c"]),
            ("test.json", &["d"]),
        ]);
        let salt = format!("human_documents = {number}\nhuman_salt =  \"{salt}\"\n");
        let data = files.prepare(&format!("{NAMED}{salt}"));
        assert_eq!(data.human_share, Some(HumanShare { used: number, all: 39 }));
        titles(&data, Role::Human)
    };
    let parts = [5, 10, 39].map(|number| chosen(number, ""));
    assert_eq!(parts.each_ref().map(Vec::len), [5, 10, 39]);
    for pair in parts.windows(2) {
        assert!(pair[0].iter().all(|title| pair[1].contains(title)), "{parts:?}");
    }
    assert_ne!(parts[0], chosen(5, "another"));
    let files = Files::new(&[("train.json", &names), ("dev.json", &["c"]), ("test.json", &["d"])]);
    let recipe = files.recipe(&format!("{NAMED}human_documents = 41\n"));
    let error = prepare_data(&recipe, &files.0.path().join("data")).unwrap_err();
    assert!(error.to_string().contains("there are 40 annotated documents"), "{error}");
    assert!(error.exit_code() == 64 && error.hint().is_some());
}

#[test]
fn documents_that_are_not_chosen_do_not_come_back_in_pre_training() {
    let files = Files::new(&[
        ("train.json", &["a", "b", "c", "e"]),
        ("dev.json", &["x"]),
        ("test.json", &["d"]),
        ("far.json", &["p", "q"]),
    ]);
    let few = format!("{NAMED}distant = [\"far.json\"]\nhuman_documents = 2\n");
    let data = files.prepare(&format!("{few}[dsdocre]\npretrain_on_human = true\n"));
    let (human, distant) = (titles(&data, Role::Human), titles(&data, Role::Distant));
    assert_eq!(human.len(), 2);
    assert_eq!(distant, [human.clone(), vec!["p".into(), "q".into()]].concat());
}
