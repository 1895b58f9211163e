//! What the report shows, as one value that the stages fill in. Every part is optional; scores are
//! fractions in [0, 1]. Not for: drawing (`chart`, `html`).

use serde::{Deserialize, Serialize};

use crate::corpus::Document;
use crate::eval::{Breakdown, Confused, CurvePoint, RecallAt, Reliability};

/// Everything the report can show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportData {
    /// Title of the page.
    pub title: String,
    /// One or two sentences under it: what was run, on what.
    pub summary: String,
    /// The recipe in short.
    pub recipe: Vec<NamedValue>,
    /// Own results.
    pub scores: Vec<VariantScores>,
    /// Published results to print beside them; see
    /// [`published_results`](super::published_results).
    pub reference: Vec<ReferenceRow>,
    /// Losses by stage and task.
    pub losses: Vec<LossCurve>,
    /// Dev F1 by epoch, one series a variant.
    pub learning: Vec<Series>,
    /// What the ranker keeps of the distant labels, by k.
    pub ranker: Vec<RecallAt>,
    /// What the ranker keeps of the gold facts of dev, by k.
    pub ranker_gold: Vec<RecallAt>,
    /// Precision–recall curve.
    pub curve: Vec<CurvePoint>,
    /// Whether scores are probabilities that hold, of the same.
    pub reliability: Option<Reliability>,
    /// The same of calibrated probabilities.
    pub calibrated: Option<Reliability>,
    /// Break-downs of the best variant on dev.
    pub breakdown: Option<Breakdown>,
    /// Which relations are taken for which, of the same.
    pub confusion: Vec<Confused>,
    /// Names of relations for people, by identifier.
    pub relation_names: std::collections::BTreeMap<String, String>,
    /// What the ranker makes of the distant labels of each relation, the least kept share first.
    pub relation_labels: Vec<RelationLabels>,
    /// Labels dropped as noise.
    pub dropped: Vec<DroppedLabel>,
    /// Time of each stage.
    pub times: Vec<StageTime>,
    /// Versions, world size, seeds.
    pub run: Vec<NamedValue>,
    /// Remarks for the reader, such as what was cut short.
    pub notes: Vec<String>,
}

/// A name with a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedValue {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

impl NamedValue {
    /// An entry.
    pub fn new(name: impl Into<String>, value: impl std::fmt::Display) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

/// Scores of one variant on one split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VariantScores {
    /// The row: system and variant, such as `DSDocRE +D`.
    pub variant: String,
    /// The split (`dev`, `test`).
    pub split: String,
    /// F1, the mean over seeds.
    pub f1: f64,
    /// Standard deviation of F1 over seeds.
    pub f1_sd: Option<f64>,
    /// Ign F1 against annotated facts.
    pub ign_f1: Option<f64>,
    /// Precision.
    pub precision: f64,
    /// Recall.
    pub recall: f64,
    /// Number of seeds; 0 where not given.
    pub seeds: usize,
}

/// Published results of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReferenceRow {
    /// Model.
    pub model: String,
    /// F1 on dev.
    pub dev_f1: Option<f64>,
    /// Ign F1 on dev.
    pub dev_ign_f1: Option<f64>,
    /// F1 on test.
    pub test_f1: Option<f64>,
    /// Ign F1 on test.
    pub test_ign_f1: Option<f64>,
}

/// A named line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points (x, y) in order of x.
    pub points: Vec<(f64, f64)>,
}

/// One loss of one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossCurve {
    /// The stage.
    pub stage: String,
    /// The task; empty for the total.
    pub task: String,
    /// Points (step, loss).
    pub points: Vec<(f64, f64)>,
}

/// Distant labels of one relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelationLabels {
    /// Identifier.
    pub relation: String,
    /// Name.
    pub name: String,
    /// Its labels.
    pub labels: usize,
    /// Those that pre-training keeps.
    pub kept: usize,
    /// Labels that are true, where that is known.
    #[serde(rename = "true")]
    pub truths: Option<usize>,
    /// True labels that are kept, likewise.
    pub kept_true: Option<usize>,
}

impl RelationLabels {
    /// The share that is kept.
    pub fn share(&self) -> f64 {
        self.kept as f64 / self.labels.max(1) as f64
    }
}

/// A distant label that the ranker dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DroppedLabel {
    /// Title of the document.
    pub title: String,
    /// The sentences that name head or tail.
    pub text: Vec<TextPart>,
    /// Name of the relation.
    pub relation: String,
    /// Score of the pair; absent where it is below all that were kept on disk.
    pub score: Option<f64>,
    /// Rank of the pair in its document, from 1; absent likewise.
    pub rank: Option<usize>,
    /// Number of ordered pairs of the document.
    pub pairs: usize,
    /// Whether the label is true, where that is known.
    pub truth: Option<bool>,
}

/// A stretch of text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPart {
    /// The words, joined by blanks.
    pub text: String,
    /// What they are.
    pub role: TextRole,
}

/// What a stretch of text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextRole {
    /// Neither of the two.
    #[default]
    Plain,
    /// A mention of the head.
    Head,
    /// A mention of the tail.
    Tail,
    /// Sentences that were left out.
    Gap,
}

/// The sentences of a document that name `head` or `tail`, cut into parts. Where mentions overlap,
/// the tail wins.
pub fn sentences_of_pair(document: &Document, head: usize, tail: usize) -> Vec<TextPart> {
    let mut parts = Vec::new();
    let mut last = None;
    for (number, words) in document.sentences.iter().enumerate() {
        let mut roles = vec![TextRole::Plain; words.len()];
        for (entity, role) in [(head, TextRole::Head), (tail, TextRole::Tail)] {
            let mentions = document
                .entities
                .get(entity)
                .map(|entity| entity.mentions.as_slice())
                .unwrap_or_default();
            for mention in mentions.iter().filter(|mention| mention.sentence == number) {
                let end = mention.end.min(words.len());
                roles[mention.start.min(end)..end].fill(role);
            }
        }
        if roles.iter().all(|role| *role == TextRole::Plain) {
            continue;
        }
        if last.is_some_and(|last| last + 1 < number) {
            parts.push(TextPart { text: "…".to_owned(), role: TextRole::Gap });
        }
        last = Some(number);
        push_words(&mut parts, words, &roles);
    }
    parts
}

fn push_words(parts: &mut Vec<TextPart>, words: &[String], roles: &[TextRole]) {
    let mut start = 0;
    for run in roles.chunk_by(|a, b| a == b) {
        parts.push(TextPart { text: words[start..start + run.len()].join(" "), role: run[0] });
        start += run.len();
    }
}

/// Time of one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageTime {
    /// The stage.
    pub stage: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Steps.
    pub steps: Option<u64>,
    /// Documents a second over all ranks.
    pub documents_per_s: Option<f64>,
    /// Word pieces a second over all ranks.
    pub tokens_per_s: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Entity, Mention};

    #[test]
    fn text_of_a_label() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let mention = |sentence, start, end| Mention { sentence, start, end, ..Mention::default() };
        let entity =
            |mentions: &[Mention]| Entity { mentions: mentions.to_vec(), knowledge_base_id: None };
        let document = Document {
            sentences: vec![
                words("Ann Lee left ."),
                words("Nothing here ."),
                words("Rome welcomed Ann ."),
            ],
            entities: vec![
                entity(&[mention(0, 0, 2), mention(2, 2, 3)]),
                entity(&[mention(2, 0, 1)]),
            ],
            ..Document::default()
        };
        let parts = sentences_of_pair(&document, 0, 1);
        let text: Vec<_> = parts.iter().map(|part| (part.text.as_str(), part.role)).collect();
        use TextRole::{Gap, Head, Plain, Tail};
        let second = [("Rome", Tail), ("welcomed", Plain), ("Ann", Head), (".", Plain)];
        assert_eq!(
            text,
            [[("Ann Lee", Head), ("left .", Plain), ("…", Gap)].as_slice(), &second].concat()
        );
    }
}
