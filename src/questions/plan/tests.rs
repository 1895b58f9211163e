use super::*;

pub(super) const RECIPE: &str = r#"
    name = "planned"
    [data.synth]
    distant = 1000
    human = 100
    dev = 10
    test = 10
    [encoder]
    name = "tiny"
    [rank]
    batch = 10
    epochs = 3
    [pretrain]
    batch = 16
    steps = 50
    [finetune]
    batch = 20
    epochs = 4
"#;

fn planned(ranks_per_node: usize) -> RunEstimate {
    planned_on("cpu", ranks_per_node, 0.5)
}

fn planned_on(device: &str, ranks_per_node: usize, tflops: f64) -> RunEstimate {
    let recipe = Recipe { device: device.into(), ..Recipe::parse(RECIPE, "test", &[]).unwrap() };
    let options = PlanOptions { nodes: 2, ranks_per_node, tflops: Some(tflops), share: 0.5 };
    plan(&recipe, Path::new("/nowhere"), options).unwrap()
}

#[test]
fn steps_documents_and_shares_of_ranks_follow_the_recipe() {
    let (two, eight) = (planned(1), planned(4));
    let names: Vec<&str> = two.stages.iter().map(|stage| stage.stage.as_str()).collect();
    let scored = ["score distant", "score human", "score dev", "score test"];
    let tuned = ["finetune-baseline", "finetune-denoised", "finetune-pretrained"];
    assert_eq!(names, [["rank"].as_slice(), &scored, &["pretrain"], &tuned].concat());
    assert_eq!((two.stages[0].steps, two.stages[5].steps, two.stages[6].steps), (30, 50, 20));
    assert_eq!(
        (
            two.ranks,
            eight.ranks,
            two.stages[1].documents_per_step,
            two.stages[5].documents_per_step
        ),
        (2, 8, 1000.0, 32.0)
    );
    for (two, eight) in two.stages.iter().zip(&eight.stages) {
        assert!(
            (two.hours / eight.hours - 4.0).abs() < 1e-9 && two.flops == eight.flops,
            "{}",
            two.stage
        );
        assert!(
            eight.memory_gb <= two.memory_gb && eight.traffic_gb >= two.traffic_gb,
            "{}",
            two.stage
        );
    }
    assert!(two.to_string().contains("finetune-pretrained"), "{two}");
}

#[test]
fn the_documents_are_part_of_the_memory_up_to_the_limit() {
    let with = |memory: &str| {
        let recipe = Recipe::parse(RECIPE, "test", &[format!("data.memory={memory}")]).unwrap();
        let options = PlanOptions { nodes: 1, ranks_per_node: 1, tflops: Some(0.5), share: 0.5 };
        plan(&recipe, Path::new("/nowhere"), options).unwrap()
    };
    let (small, large) = (with("1 MB"), with("2 GB"));
    let distant = &large.corpora[0];
    let all = distant.documents as f64 * distant.bytes;
    // Pre-training reads the distant documents; 1 MB are a window of them.
    let [few, many] = [&small, &large].map(|estimate| estimate.stages[5].memory_gb);
    assert!((many - few - (all - 1e6) / 1e9).abs() < 1e-12, "{many} {few} {all}");
    let note = |estimate: &RunEstimate| estimate.notes.iter().any(|note| note.contains("windows"));
    assert!(note(&small) && !note(&large));
    // Scoring holds a row group at a time.
    assert_eq!(small.stages[1].memory_gb, large.stages[1].memory_gb);
}

#[test]
fn documents_of_dev_that_are_trained_on_are_counted() {
    let recipe = Recipe::parse(RECIPE, "test", &["data.train_on_dev=true".into()]).unwrap();
    let sizes = corpora(&recipe, Path::new("/nowhere")).unwrap();
    let documents: Vec<_> = sizes.iter().map(|size| (size.role.as_str(), size.documents)).collect();
    assert_eq!(documents, [("distant", 1000), ("human", 110), ("dev", 10), ("test", 10)]);
}

#[test]
fn an_epoch_of_fine_tuning_has_the_visits_of_all_sources() {
    let temp = tempfile::tempdir().unwrap();
    let document = |title: usize| {
        serde_json::json!({
            "title": title.to_string(),
            "sents": [["Ada", "ran", "Unit"]],
            "vertexSet": [
                [{"name": "Ada", "sent_id": 0, "pos": [0, 1], "type": "PER"}],
                [{"name": "Unit", "sent_id": 0, "pos": [2, 3], "type": "ORG"}],
            ],
            "labels": [{"h": 0, "t": 1, "r": "runs", "evidence": []}],
        })
    };
    let documents: Vec<_> = (0..30).map(document).collect();
    let file = temp.path().join("llm.json");
    fs_err::write(&file, serde_json::to_string(&documents).unwrap()).unwrap();
    let source = format!(
        "data.source=[{{name=\"llm\", kind=\"llm\", weight=0.5, files=[\"{}\"]}}]",
        file.display()
    );
    let steps = |settings: &[String]| {
        let recipe = Recipe::parse(RECIPE, "test", settings).unwrap();
        let options = PlanOptions { nodes: 1, ranks_per_node: 1, tflops: Some(1.0), share: 0.5 };
        let plan = plan(&recipe, Path::new("/nowhere"), options).unwrap();
        let finetune = plan.stages.iter().find(|stage| stage.stage.starts_with("finetune"));
        finetune.unwrap().steps as f64
    };
    let schedule = ["finetune.epochs=10".to_owned(), "finetune.batch=5".to_owned()];
    let few = "data.human_documents=40".to_owned();
    let settings = |more: &[&String]| {
        [&schedule[..], &more.iter().map(|&text| text.clone()).collect::<Vec<_>>()].concat()
    };
    // 100 annotated documents; 40 of them; 15 visits of the source.
    assert_eq!(steps(&settings(&[])), 200.0);
    assert_eq!(steps(&settings(&[&few])), 80.0);
    assert_eq!(steps(&settings(&[&source])), 230.0);
    assert_eq!(steps(&settings(&[&source, &few])), 110.0);
}

#[test]
fn a_step_takes_as_long_as_its_kernels_take_to_start() {
    let pretraining = |device: &str, tflops: f64| planned_on(device, 1, tflops).stages[5].clone();
    let fast = pretraining("auto", 1e4);
    assert_eq!((fast.stage.as_str(), fast.steps, fast.micro_batches), ("pretrain", 50, 1.0));
    assert!((fast.hours * 3600.0 - 50.0 * 0.006).abs() < 1e-9, "{}", fast.hours);
    assert!(pretraining("cpu", 1e4).hours < fast.hours);
    // Products take longer on a slow device, whatever it is.
    assert!(pretraining("auto", 0.1).hours > fast.hours);
    assert_eq!(pretraining("auto", 0.1).hours, pretraining("cpu", 0.1).hours);
}

#[test]
fn hours_are_divided_by_the_ranks_that_a_batch_gives_work_to() {
    let (ten, forty) = (planned(5), planned(20));
    // Ranker: batches of 10 on 10 and on 40 ranks.
    assert_eq!(ten.stages[0].hours.to_bits(), forty.stages[0].hours.to_bits());
    assert!(ten.notes.is_empty() || !ten.notes[0].starts_with("rank: "), "{:?}", ten.notes);
    let told = "rank: a batch of 10 leaves 30 of 40 ranks without work (10, 11, ";
    assert!(forty.notes.iter().any(|note| note.starts_with(told)), "{:?}", forty.notes);
}

#[test]
fn wrong_machines_are_refused() {
    let recipe = Recipe::parse(RECIPE, "test", &[]).unwrap();
    let good = PlanOptions { nodes: 1, ranks_per_node: 1, tflops: Some(1.0), share: 0.5 };
    for bad in [
        PlanOptions { nodes: 0, ..good },
        PlanOptions { tflops: Some(-1.0), ..good },
        PlanOptions { share: 0.0, ..good },
    ] {
        assert_eq!(plan(&recipe, Path::new("/nowhere"), bad).unwrap_err().exit_code(), 64);
    }
}

/// A teacher is fine-tuned once for all its students, which then read the distant documents.
#[test]
fn students_come_after_their_teacher_and_read_the_distant_documents() {
    let text = RECIPE.replace(
        "name = \"planned\"",
        "name = \"planned\"\nsystem = \"atlop\"\nvariants = [\"student\", \"baseline\"]",
    );
    let recipe = Recipe::parse(&text, "test", &["refine.epochs=1".to_owned()]).unwrap();
    let options = PlanOptions { nodes: 1, ranks_per_node: 1, tflops: Some(0.5), share: 0.5 };
    let estimate = plan(&recipe, Path::new("/nowhere"), options).unwrap();
    let stages: Vec<(&str, u64)> =
        estimate.stages.iter().map(|stage| (stage.stage.as_str(), stage.steps)).collect();
    let expected = [
        ("finetune-baseline", 20),
        ("teach baseline", 1),
        ("student-distant", 200),
        ("finetune-student", 5),
    ];
    assert_eq!(stages, expected);
}
