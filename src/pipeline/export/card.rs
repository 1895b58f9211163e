//! The card of an export. Each value comes from a file: of the checkpoint, of the run that it lies
//! in, or from a flag. What cannot be known is left out.

use clap::Args;
use serde_json::Value;

use super::origin::Origin;
use crate::base::run_files;
use crate::corpus::Relation;
use crate::pipeline::model::Description;
use crate::pipeline::run::stage_of;
use crate::pipeline::self_test::{SelfTest, Subject};
use crate::report::{CardScore, ModelCard, markdown_table};
use crate::systems::dsdocre::ModelKind;
use crate::systems::evidence::EvidenceSettings;
use crate::systems::{DecisionRule, Variant};
use crate::train::Checkpoint;
use crate::{Error, Result};

/// What the licence of a model is where nobody has said so; the Hub's own word.
const NO_LICENSE: &str = "unknown";

/// What its author says of a model.
#[derive(Clone, Debug, Default, Args)]
pub struct CardFlags {
    /// Licence of the model, as the Hugging Face Hub names it: mit, apache-2.0, other …
    #[arg(long, value_name = "ID")]
    pub license: Option<String>,
    /// Language of its documents: en, de …; may be repeated
    #[arg(long, value_name = "L")]
    pub language: Vec<String>,
    /// Data set that it was trained on, as the Hub names it; may be repeated
    #[arg(long, value_name = "NAME")]
    pub dataset: Vec<String>,
    /// Who made it
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
}

impl CardFlags {
    /// Refuses what the Hub does not take.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the flag.
    pub fn check(&self) -> Result<()> {
        let plain = |text: &str, more: &str| {
            let good = |byte: char| byte.is_ascii_alphanumeric() || more.contains(byte);
            !text.is_empty() && text.chars().all(good)
        };
        let license = |text: &String| plain(text, ".-") && !text.contains(char::is_uppercase);
        if let Some(license) = self.license.as_ref().filter(|text| !license(text)) {
            return Err(Error::recipe(format!("--license {license}")).with_hint(
                "the Hub names licences in lower case: mit, apache-2.0, cc-by-4.0, other",
            ));
        }
        let language = |text: &String| {
            plain(text, "-") && (text.len() <= 3 || text.contains('-') || text == "multilingual")
        };
        if let Some(language) = self.language.iter().find(|text| !language(text)) {
            return Err(Error::recipe(format!("--language {language}"))
                .with_hint("give a code of ISO 639, such as en, or multilingual"));
        }
        let dataset = |text: &String| plain(text, "._-/") && text.matches('/').count() < 2;
        if let Some(dataset) = self.dataset.iter().find(|text| !dataset(text)) {
            return Err(Error::recipe(format!("--dataset {dataset}"))
                .with_hint("name it as on the Hub: NAME or ORG/NAME"));
        }
        Ok(())
    }
}

/// The card of a model with its self-test.
///
/// # Errors
/// Files of the checkpoint that cannot be read.
pub fn card_of(
    subject: &Subject,
    checkpoint: &Checkpoint,
    flags: &CardFlags,
    test: Option<&SelfTest>,
) -> Result<ModelCard> {
    let state = &subject.state;
    let best = state.best.is_some_and(|(_, step)| step == state.step);
    let origin = Origin::of(checkpoint.path(), &state.stage, best);
    let facts = CardFacts { subject, origin: &origin, flags };
    let description = subject.description();
    let system = description.settings.info();
    let kind = facts.kind();
    let mut card = ModelCard {
        name: format!("{} {kind}", system.title),
        description: facts.what(),
        license: flags.license.clone().unwrap_or_else(|| NO_LICENSE.to_owned()),
        languages: flags.language.clone(),
        datasets: flags.dataset.clone(),
        base_model: description.base.as_ref().map(|base| base.name.clone()),
        // The Hub has no task of relation extraction; an encoder is one that it knows.
        pipeline_tag: (description.kind == ModelKind::Pretrainer).then_some("feature-extraction"),
        tags: ["relation-extraction", "document-level-relation-extraction", system.name]
            .map(str::to_owned)
            .into(),
        scores: facts.scores(),
        sections: Vec::new(),
    };
    let sections = [
        ("Use", facts.usage()),
        ("Relations", facts.relations()),
        ("Decision", facts.decision()),
        ("Calibration", facts.calibration()),
        ("Data", facts.data()),
        ("Training", facts.training(checkpoint)?),
        ("Self-test", self_test(test)),
        ("Limits", facts.limits()),
        ("Citation", facts.citation()),
        ("Licence", facts.license()),
    ];
    let sections = sections.into_iter().filter(|(_, text)| !text.is_empty());
    card.sections.extend(sections.map(|(title, text)| (title.to_owned(), text)));
    Ok(card)
}

/// What the sections are made of.
struct CardFacts<'a> {
    subject: &'a Subject,
    origin: &'a Origin,
    flags: &'a CardFlags,
}

impl CardFacts<'_> {
    fn description(&self) -> &Description {
        self.subject.description()
    }

    /// What the model is, in a few words.
    fn kind(&self) -> &'static str {
        let description = self.description();
        match description.kind {
            ModelKind::Ranker => "ranker",
            ModelKind::Pretrainer => "pre-trained encoder",
            ModelKind::Finetuner if description.settings.get::<EvidenceSettings>().is_some() => {
                "evidence predictor"
            }
            ModelKind::Finetuner => "relation extractor",
        }
    }

    fn what(&self) -> String {
        let description = self.description();
        let (system, relations) = (description.settings.info(), description.relations.len());
        let does = match self.kind() {
            "ranker" => "scores how likely the entities of each pair of a document are related",
            "pre-trained encoder" => {
                "is an encoder that was pre-trained on documents with distant labels"
            }
            "evidence predictor" => "tells which sentences of a document support a fact",
            _ => "finds the relations between the entities of a whole document",
        };
        let mut text = format!(
            "This model {does}, over {relations} relations. It is {} ({}).",
            system.title, system.about
        );
        if let Some(author) = &self.flags.author {
            text += &format!(" Made by {author}.");
        }
        text
    }

    /// F1 on dev as training found it, or all that the run has scored.
    fn scores(&self) -> Vec<CardScore> {
        let (state, origin) = (&self.subject.state, self.origin);
        let score = |split: &str, name: &str, kind: &str, share: f64| CardScore {
            dataset: self.scored_data(split),
            split: split.to_owned(),
            metric: (name.to_owned(), kind.to_owned()),
            value: 100.0 * share,
        };
        let mut found = Vec::new();
        for (split, scores) in &origin.scores {
            let official = &scores["official"];
            let values = [
                ("F1", "f1", &official["f1"]),
                ("Ign F1", "ign_f1", &official["ign_annotated"]["f1"]),
                ("Precision", "precision", &official["precision"]),
                ("Recall", "recall", &official["recall"]),
            ];
            let known = values
                .into_iter()
                .filter_map(|(name, kind, value)| Some(score(split, name, kind, value.as_f64()?)));
            found.extend(known);
        }
        if found.is_empty()
            && let Some((share, _)) = state.best.filter(|(_, step)| *step == state.step)
        {
            // The evidence predictor is judged by its sentences.
            let name = if self.kind() == "evidence predictor" { "Evidence F1" } else { "F1" };
            found.push(score("dev", name, "f1", share));
        }
        found
    }

    /// The name of the documents that a score is about, and their identifier on the Hub, where the
    /// author has named a single data set.
    fn scored_data(&self, split: &str) -> (String, String) {
        if let [only] = self.flags.dataset.as_slice() {
            return (only.clone(), only.clone());
        }
        let files = self.origin.files(split);
        let name = if self.origin.is_generated() {
            "generated documents".to_owned()
        } else if files.is_empty() {
            format!("{split} documents of the run")
        } else {
            files.join(", ")
        };
        (name, "custom".to_owned())
    }

    /// The documents that threshold, calibration and epoch were chosen on.
    fn dev(&self) -> String {
        match self.origin.files("dev").join(", ") {
            files if files.is_empty() => "dev".to_owned(),
            files => format!("dev ({files})"),
        }
    }

    fn usage(&self) -> String {
        let code = |language: &str, text: &str| format!("```{language}\n{text}\n```\n");
        let shell = match self.kind() {
            "ranker" => "docre-pretrain score --checkpoint MODEL --input SHARDS --output SCORED",
            "pre-trained encoder" => {
                "docre-pretrain finetune --encoder MODEL --train SHARDS --dev SHARDS --run-dir RUN"
            }
            "evidence predictor" => {
                "docre-pretrain predict --checkpoint EXTRACTOR --evidence MODEL \\\n    \
                 --input documents.json --output result.json"
            }
            _ => {
                "docre-pretrain predict --checkpoint MODEL \\\n    \
                 --input documents.json --output result.json"
            }
        };
        let check =
            "# Does it still do what it did when it was exported?\ndocre-pretrain check MODEL";
        let mut text = code("sh", &format!("{shell}\n{check}"));
        let python = match self.kind() {
            "relation extractor" => {
                "import docre_pretrain as docre\n\nwith docre.load(\"MODEL\") as model:\n    \
                 for result in model.predict(documents):\n        print(result.title, result.facts)"
            }
            "pre-trained encoder" => {
                "from transformers import AutoModel, AutoTokenizer\n\n\
                 tokenizer = AutoTokenizer.from_pretrained(\"MODEL\")\n\
                 model = AutoModel.from_pretrained(\"MODEL\")"
            }
            _ => "",
        };
        if !python.is_empty() {
            text += &format!("\n{}", code("python", python));
        }
        text + "\n`MODEL` is the folder of this file."
    }

    fn relations(&self) -> String {
        let counts = self.origin.facts.as_ref();
        let row = |(class, relation): (usize, &Relation)| {
            let mut row = vec![relation.id.clone(), relation.name.clone()];
            row.extend(counts.map(|counts| counts.get(class).copied().unwrap_or(0).to_string()));
            row
        };
        let rows: Vec<Vec<String>> =
            self.description().relations.iter().enumerate().map(row).collect();
        let head: &[&str] = match counts {
            Some(_) => &["id", "name", "annotated facts in training"],
            None => &["id", "name"],
        };
        markdown_table(head, &rows)
    }

    fn decision(&self) -> String {
        let threshold = self.subject.state.threshold;
        if self.kind() == "evidence predictor" {
            return threshold.map_or_else(String::new, |theta| {
                format!("A sentence with a probability of at least {theta:.4} is evidence.")
            });
        }
        let Some(decider) = self.subject.decider() else { return String::new() };
        let rule = match decider.rule {
            DecisionRule::ArgMax => {
                "The largest of all relations and \"no relation\" counts: one relation a pair at \
                 most."
                    .to_owned()
            }
            DecisionRule::Threshold => {
                format!("A relation counts if its probability is above {:.4}.", decider.threshold)
            }
            DecisionRule::Adaptive { top: 0 } => {
                "A relation counts if its logit is above that of the threshold class.".to_owned()
            }
            DecisionRule::Adaptive { top } => format!(
                "A relation counts if its logit is above that of the threshold class; {top} \
                 relations a pair at most."
            ),
        };
        let fused = decider.evidence.is_some_and(|rule| rule.fusion.is_some());
        let chosen = match (decider.rule, threshold) {
            (DecisionRule::Threshold, Some(_)) => {
                format!(" The threshold was chosen on {}.", self.dev())
            }
            (DecisionRule::Adaptive { .. }, Some(theta)) if fused => {
                let dev = self.dev();
                format!(
                    " Scores of two runs are fused above {theta:.4}, which was chosen on {dev}."
                )
            }
            _ => String::new(),
        };
        rule + &chosen
    }

    fn calibration(&self) -> String {
        let Some(calibration) = &self.subject.state.calibration else { return String::new() };
        let common = &calibration.common;
        let mut text = format!(
            "`confidence` in predictions is a calibrated probability: a logistic function of the \
             margin for each relation, fitted on {}. Over all relations its slope is {:.3} (a \
             temperature of {:.3}) and its intercept {:.3}.",
            self.dev(),
            common.slope,
            1.0 / common.slope,
            common.intercept
        );
        let rows: Vec<Vec<String>> = self
            .origin
            .scores
            .iter()
            .filter_map(|(split, scores)| {
                let error =
                    |key: &str| Some(format!("{:.2}", 100.0 * scores[key]["ece"].as_f64()?));
                Some(vec![split.clone(), error("reliability")?, error("calibrated")?])
            })
            .collect();
        if !rows.is_empty() {
            text += &format!(
                "\n\nExpected calibration error:\n\n{}",
                markdown_table(&["split", "before (%)", "after (%)"], &rows)
            );
        }
        text
    }

    fn data(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .origin
            .shards
            .iter()
            .map(|(role, manifest)| {
                let identity = manifest.identity().unwrap_or_default();
                let files = match self.origin.is_generated() {
                    true => "generated".to_owned(),
                    false => self.origin.files(role).join(", "),
                };
                let counts = [manifest.documents, manifest.labelled, manifest.facts];
                let [documents, labelled, facts] = counts.map(|count| count.to_string());
                let hash = identity.chars().take(16).collect();
                vec![role.clone(), files, documents, labelled, facts, hash]
            })
            .collect();
        let head = ["role", "files", "documents", "labelled", "facts", "BLAKE3 of the shards"];
        let table = markdown_table(&head, &rows);
        let note =
            "The roles are those of the run. `distant` holds labels that nobody has checked.";
        if table.is_empty() { table } else { format!("{table}\n{note}") }
    }

    fn training(&self, checkpoint: &Checkpoint) -> Result<String> {
        let (state, description) = (&self.subject.state, self.description());
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let (run, recipe) = (&self.origin.run, &self.origin.recipe);
        let base = description.base.as_ref();
        let order = state.order.as_ref();
        let variants = Variant::ALL.into_iter();
        let variant = variants
            .filter(|variant| state.stage == stage_of(*variant))
            .map(|variant| description.settings.info().row(variant))
            .next();
        let rows = [
            ("stage", Some(state.stage.clone())),
            ("variant", variant),
            ("encoder at the start", Some(description.encoder.name.clone())),
            ("steps", Some(format!("{} of {}", state.step, state.total_steps))),
            ("batch", order.map(|order| order.batch.to_string())),
            ("seed", order.map(|order| order.seed.to_string())),
            ("hours", Some(format!("{:.2}", state.seconds / 3600.0))),
            ("ranks", text(&run["world_size"])),
            ("profile", recipe.get("profile").and_then(|value| Some(value.as_str()?.to_owned()))),
            ("base model", base.map(|base| base.name.clone())),
            ("commit of the base model", base.map(|base| base.commit.clone())),
            ("docre-pretrain", text(&run["version"])),
            ("libtorch", text(&run["libtorch"])),
            ("identity of the checkpoint", Some(checkpoint.identity()?)),
        ];
        let known =
            rows.into_iter().filter_map(|(name, value)| Some(vec![name.to_owned(), value?]));
        let table = markdown_table(&["", ""], &known.collect::<Vec<_>>());
        Ok(format!("{table}\nAll settings are in `docre.json`."))
    }

    fn limits(&self) -> String {
        let description = self.description();
        let mut lines = vec![
            "Mentions of entities must be given: the model does not find them.".to_owned(),
            format!("It knows entities of these types: {}.", description.entity_types.join(", ")),
        ];
        if let Some(longest) = self.subject.longest() {
            let cut = if description.encoder.truncate { "; what is longer may be cut" } else { "" };
            lines.push(format!("The encoder reads {longest} word pieces in one go{cut}."));
        }
        lines.push(match self.origin.shards.is_empty() {
            true => "On which documents it was trained is not recorded with it.".to_owned(),
            false => "It was not tried on documents of other kinds than those above.".to_owned(),
        });
        let items = lines.into_iter().map(|line| format!("* {line}\n"));
        items.collect()
    }

    fn citation(&self) -> String {
        let system = self.description().settings.info();
        format!("{}: {}.", system.title, system.source.trim_end_matches('.'))
    }

    fn license(&self) -> String {
        match &self.flags.license {
            Some(license) => format!("{license}. The base model and the data have their own."),
            None => "Not stated. The base model and the data have their own.".to_owned(),
        }
    }
}

fn self_test(test: Option<&SelfTest>) -> String {
    let Some(test) = test else { return String::new() };
    let (documents, facts) =
        (test.documents.len(), test.recorded.facts.iter().map(Vec::len).sum::<usize>());
    format!(
        "`{}/` holds {documents} documents, and the numbers and facts ({facts}) that the model \
         gave for them in single precision when it was exported. `docre-pretrain check MODEL` \
         compares.",
        run_files::SELF_TEST
    )
}
