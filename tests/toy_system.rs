//! A system that stands outside `src/systems`: it is registered in one line, then trained by its
//! name, evaluated, saved, used and described as any other.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use docre::{
    ActiveRun, Classes, DocumentViews, Error, EvaluateTask, Example, Extractor, FinetuneTask,
    Forward, Foundation, Init, Layout, Markers, NaClass, PackedDocuments, Pass, PredictFiles,
    PredictOptions, Profile, Recipe, RelationBatch, Result, Role, RunFolder, Schedule, Session,
    System, SystemInfo, SystemSettings, Tables, TokenizedDocument, View, ViewChoices, ViewOptions,
    describe_system, evaluate, finetune, list_systems, on, predict_files, prepare_data,
    recipe_schema, register_system, tables,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings of the toy.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct ToySettings {
    /// Standard deviation of the starting weights.
    spread: f64,
}

impl Default for ToySettings {
    fn default() -> Self {
        Self { spread: 0.02 }
    }
}

/// One linear map over the states of head and tail.
struct Toy {
    foundation: Foundation,
    map: Tensor,
    layout: Arc<ToyLayout>,
}

struct ToyLayout(DocumentViews);

struct ToyTables {
    documents: PackedDocuments,
    heads: Vec<i64>,
    tails: Vec<i64>,
}

static TOY: System = System::new::<ToySettings>(
    SystemInfo::new("toy", "one linear map over head and tail", "this test"),
    |profile, _| {
        Arc::new(ToySettings { spread: if profile == Profile::Code { 0.1 } else { 0.02 } })
    },
);

impl SystemSettings for ToySettings {
    fn check(&self) -> Result<()> {
        if self.spread > 0.0 {
            return Ok(());
        }
        Err(Error::Recipe { message: "toy.spread must be positive".into(), hint: None })
    }

    fn schedule(&self, _system: &SystemInfo, _profile: Profile) -> Schedule {
        Schedule { learning_rate: 1e-3, batch: 4, steps: Some(6), ..Schedule::base() }
    }

    fn build(&self, mut foundation: Foundation, _ranked: bool) -> Result<Box<dyn Extractor>> {
        let size = [foundation.relations as i64, 2 * foundation.encoder.facts().width];
        let start = Init::Normal { std: self.spread };
        let map = foundation.parameters.declare("heads.map", &size, start)?;
        let options = ViewOptions {
            max_pieces: foundation.max_pieces,
            truncate: true,
            pad_to: None,
            max_mentions: None,
            markers: Markers::PerEntity,
            repeat_masked: false,
            in_turn: false,
        };
        let (pieces, seed) = (foundation.pieces.clone(), foundation.seed);
        let layout = Arc::new(ToyLayout(DocumentViews { pieces, options, seed }));
        Ok(Box::new(Toy { foundation, map, layout }))
    }
}

impl Layout for ToyLayout {
    fn cost(&self, document: &TokenizedDocument, pairs: usize) -> usize {
        document.pieces.len() + pairs
    }

    fn tables(&self, examples: &[Example]) -> Result<Tables> {
        let view = |example: &Example| self.0.view(&example.document, &ViewChoices::default());
        let views: Vec<View> = examples.iter().map(view).collect::<Result<_>>()?;
        let visits: Vec<u64> = examples.iter().map(|example| example.visit).collect();
        let documents = self.0.pack(&views, &visits);
        let side = |side: fn(&(u32, u32)) -> u32| {
            let rows = examples.iter().enumerate().flat_map(|(index, example)| {
                let base = documents.entity_base(index);
                example.pairs.iter().map(move |pair| base + i64::from(side(pair)))
            });
            rows.collect::<Vec<i64>>()
        };
        let (heads, tails) = (side(|pair| pair.0), side(|pair| pair.1));
        Ok(Box::new(ToyTables { documents, heads, tails }))
    }
}

impl Extractor for Toy {
    fn layout(&self) -> Arc<dyn Layout> {
        Arc::<ToyLayout>::clone(&self.layout)
    }

    fn classes(&self) -> Classes {
        Classes { relations: self.foundation.relations, na: NaClass::Absent }
    }

    fn logits(&self, batch: &RelationBatch, forward: Forward) -> Result<Tensor> {
        let laid: &ToyTables = tables(&batch.tables)?;
        let device = self.foundation.parameters.device();
        let pass = Pass { train: forward.train, ..Pass::inference(forward.precision) };
        let states = self.foundation.encoder.encode(&laid.documents.stream(device)?, &pass)?;
        let entities = laid.documents.entity_vectors(&states)?;
        let side = |rows: &[i64]| -> Result<Tensor> {
            Ok(entities.f_index_select(0, &on(rows, device)?)?)
        };
        let pairs = Tensor::f_cat(&[side(&laid.heads)?, side(&laid.tails)?], 1)?;
        Ok(pairs.f_matmul(&self.map.f_transpose(0, 1)?)?.f_to_kind(Kind::Float)?)
    }

    fn foundation(&self) -> &Foundation {
        &self.foundation
    }
}

const RECIPE: &str = "
system = \"toy\"
device = \"cpu\"
[data.synth]
distant = 1
human = 8
dev = 4
test = 4
[encoder]
name = \"tiny\"
";

fn trained(recipe: &Recipe, folder: &Path, session: &Session) -> Result<()> {
    let data = prepare_data(recipe, &folder.join("data"))?;
    let run_folder = RunFolder::claim(&folder.join("run"))?;
    let run = ActiveRun { recipe, folder: run_folder, resume: false, session };
    let settings = recipe.settings()?;
    let task = FinetuneTask {
        stage: "finetune",
        train: &data.training(&recipe.data)?,
        dev: &data.need(Role::Dev)?,
        start: None,
        heads_from: None,
        ranker: None,
        settings: &settings,
        schedule: None,
    };
    let checkpoint = finetune(&task, &run)?;
    assert_eq!(checkpoint.trainer()?.stage, "finetune");
    let gold = folder.join("data/world/test.json");
    let output = folder.join("result.json");
    let options = PredictOptions {
        checkpoint: checkpoint.path().to_owned(),
        threshold: Some(0.0),
        ..PredictOptions::default()
    };
    let files = PredictFiles {
        input: vec![gold.clone()],
        output: output.clone(),
        ..PredictFiles::default()
    };
    let predicted = predict_files(&options, &files, session)?;
    assert_eq!(predicted.documents, 4);
    assert!(predicted.facts > 0, "a threshold of 0 keeps every relation");
    let task = EvaluateTask { gold, predictions: vec![output], ..EvaluateTask::default() };
    let scored = evaluate(&task)?;
    assert!(scored.scores.official.recall > 0.99, "every relation of every pair was predicted");
    Ok(())
}

#[test]
fn a_system_from_outside_is_one_line() {
    register_system(&TOY).unwrap();

    assert!(register_system(&TOY).unwrap_err().to_string().contains("`toy`"));
    assert!(list_systems().contains("toy "));
    let described = describe_system("toy", "tiny").unwrap().to_string();
    assert!(described.contains("spread = 0.02 | 0.02 | 0.1"), "{described}");
    assert!(recipe_schema()["properties"]["toy"].is_object());

    let set = |setting: &str| Recipe::parse(RECIPE, "toy.toml", &[setting.to_owned()]);
    assert!(set("toy.spread=0").unwrap_err().to_string().contains("toy.spread"));
    let wrong = set("toy.spraed=1").unwrap_err();
    assert_eq!(wrong.hint(), Some("did you mean `spread`?"));
    let recipe = set("toy.spread=0.05").unwrap();
    assert_eq!(recipe.finetune.steps, Some(6));
    assert_eq!(recipe.settings().unwrap().get::<ToySettings>().unwrap().spread, 0.05);
    assert!(recipe.to_toml().unwrap().contains("[toy]\nspread = 0.05\n"));

    let folder = tempfile::tempdir().unwrap();
    let session = Session::start("cpu", 1).unwrap();
    trained(&recipe, folder.path(), &session).unwrap();
}
