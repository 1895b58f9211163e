//! What is known of a document, as data and as text.

use std::fmt;

use serde::Serialize;

use crate::report::{TextPart, TextRole};

/// A document of a run, explained; one part for each role it has (a title is held out of training
/// if dev or test have it).
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The title.
    pub title: String,
    /// What is known of it in each role.
    pub roles: Vec<ExplainedDocument>,
}

/// A document in one role.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedDocument {
    /// `distant`, `human`, `dev` or `test`, or the name of a source.
    pub role: String,
    /// Row in its shards.
    pub row: usize,
    /// Number of words.
    pub words: usize,
    /// Number of sentences.
    pub sentences: usize,
    /// Number of ordered pairs.
    pub pairs: usize,
    /// Whose predictions of this role there are: variants, with the run where there are several,
    /// and the number of iterations where `predict --all-iterations` wrote it.
    pub predictors: Vec<String>,
    /// Pairs that the ranker keeps for the stage that reads this role; `None` where it ranks
    /// nothing or keeps all.
    pub kept: Option<usize>,
    /// Entities, by number.
    pub entities: Vec<ExplainedEntity>,
    /// The pairs asked about; without a question those with a label or a prediction.
    pub about: Vec<ExplainedPair>,
}

/// An entity.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedEntity {
    /// Its first name.
    pub name: String,
    /// Its type.
    pub entity_type: String,
    /// Number of mentions.
    pub mentions: usize,
    /// Sentences that name it.
    pub sentences: Vec<usize>,
}

/// An ordered pair of entities.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedPair {
    /// Number of the head entity.
    pub head: usize,
    /// Number of the tail entity.
    pub tail: usize,
    /// Place among the document's pairs by the ranker's score, from 1; `None` below all that are on
    /// disk.
    pub rank: Option<usize>,
    /// The ranker's score.
    pub score: Option<f32>,
    /// Whether the ranker keeps the pair; `None` where it does not choose.
    pub kept: Option<bool>,
    /// Sentences that name both.
    pub together: Vec<usize>,
    /// Its labels.
    pub labels: Vec<ExplainedLabel>,
    /// What teachers say of its relations, and what the rules make of it.
    pub judgements: Vec<TeacherJudgement>,
    /// What the variants predict for it.
    pub predictions: Vec<ExplainedPrediction>,
    /// The sentences that name one of the two, where a single pair was asked about.
    pub text: Vec<TextPart>,
}

/// A label of a pair.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedLabel {
    /// Identifier of the relation.
    pub relation: String,
    /// Its name.
    pub name: String,
    /// Sentences given as evidence.
    pub evidence: Vec<usize>,
    /// Whether the document expresses it, in a generated world.
    pub truth: Option<bool>,
    /// Other documents with the same fact, the first few.
    pub elsewhere: Vec<String>,
    /// How many others there are.
    pub elsewhere_count: usize,
    /// Variants that were asked and do not predict it.
    pub missed_by: Vec<String>,
}

/// What a teacher says of a relation of a pair.
#[derive(Clone, Debug, Serialize)]
pub struct TeacherJudgement {
    /// The variant that taught.
    pub teacher: String,
    /// Identifier of the relation.
    pub relation: String,
    /// Its name.
    pub name: String,
    /// Calibrated probability that the relation holds; `None` where the teacher stored none,
    /// because it was below `distant.floor` or not among the `distant.top` likeliest.
    pub probability: Option<f64>,
    /// What the rule of the run does with the relation; `None` where labels stay as they are.
    pub action: Option<&'static str>,
    /// The target that training takes, from 0 to 1, if a rule gave one.
    pub target: Option<f32>,
}

/// A predicted fact of a pair.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedPrediction {
    /// Whose prediction it is, as in `predictors`.
    pub variant: String,
    /// Identifier of the relation.
    pub relation: String,
    /// Its name.
    pub name: String,
    /// The system's score, if it gave one.
    pub score: Option<f64>,
    /// Whether the document is labelled with it; `None` for a document without labels.
    pub right: Option<bool>,
}

fn numbers(list: &[usize]) -> String {
    list.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title)?;
        self.roles.iter().try_for_each(|role| write!(f, "\n{role}"))
    }
}

impl fmt::Display for ExplainedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, row, words, sentences, pairs, .. } = self;
        write!(
            f,
            "{role}, row {row}: {words} words in {sentences} sentences, {} entities, {pairs} \
             ordered pairs",
            self.entities.len()
        )?;
        if let Some(kept) = self.kept {
            write!(f, ", of which the ranker keeps {}", kept.min(*pairs))?;
        }
        for (number, entity) in self.entities.iter().enumerate() {
            let ExplainedEntity { name, entity_type, mentions, sentences } = entity;
            write!(
                f,
                "\n  {number:>3} {name} ({entity_type}), {mentions} mention(s) in sentence(s) {}",
                numbers(sentences)
            )?;
        }
        for pair in &self.about {
            write!(f, "\n  {} → {}", self.entities[pair.head].name, self.entities[pair.tail].name)?;
            write!(f, " ({} → {}): {pair}", pair.head, pair.tail)?;
        }
        if !self.predictors.is_empty() {
            write!(f, "\n  predictions of {}", self.predictors.join("; "))?;
        }
        if self.about.is_empty() {
            write!(f, "\n  nothing is labelled or predicted here")?;
        }
        Ok(())
    }
}

impl fmt::Display for ExplainedPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = Vec::new();
        match (self.rank, self.score, self.kept) {
            (Some(rank), Some(score), kept) => {
                let verdict = match kept {
                    Some(true) => ", kept",
                    Some(false) => ", dropped",
                    None => "",
                };
                told.push(format!("number {rank} by the ranker (score {score:.3}){verdict}"));
            }
            (_, _, Some(false)) => {
                told.push("dropped, below all pairs that the ranker left on disk".to_owned());
            }
            _ => {}
        }
        told.push(match self.together.as_slice() {
            [] => "never named in one sentence".to_owned(),
            sentences => format!("named together in sentence(s) {}", numbers(sentences)),
        });
        write!(f, "{}", told.join("; "))?;
        self.labels.iter().try_for_each(|label| write!(f, "\n        {label}"))?;
        self.judgements.iter().try_for_each(|said| write!(f, "\n        {said}"))?;
        self.predictions.iter().try_for_each(|fact| write!(f, "\n        {fact}"))?;
        if !self.text.is_empty() {
            let marked = |part: &TextPart| match part.role {
                TextRole::Head => format!("[{}]h", part.text),
                TextRole::Tail => format!("[{}]t", part.text),
                TextRole::Plain | TextRole::Gap => part.text.clone(),
            };
            write!(f, "\n        {}", self.text.iter().map(marked).collect::<Vec<_>>().join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Display for ExplainedLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "label {} `{}`", self.relation, self.name)?;
        match self.truth {
            Some(true) => write!(f, ", true")?,
            Some(false) => write!(f, ", FALSE: the text does not express it")?,
            None => {}
        }
        if !self.evidence.is_empty() {
            write!(f, ", evidence in sentence(s) {}", numbers(&self.evidence))?;
        }
        if !self.missed_by.is_empty() {
            write!(f, "; missed by {}", self.missed_by.join("; "))?;
        }
        if self.elsewhere_count > 0 {
            let more = match self.elsewhere_count - self.elsewhere.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            write!(f, "; the same fact in {}{more}", self.elsewhere.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for TeacherJudgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "judged by {}: {} `{}`", self.teacher, self.relation, self.name)?;
        match self.probability {
            Some(probability) => write!(f, ", probability {probability:.3}")?,
            None => write!(f, ", unlikely: no probability was stored")?,
        }
        if let Some((action, target)) = self.action.zip(self.target) {
            write!(f, "; by the rule: {action}, target {target:.3}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ExplainedPrediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "predicted by {}: {} `{}`", self.variant, self.relation, self.name)?;
        if let Some(score) = self.score {
            write!(f, ", score {score:.3}")?;
        }
        match self.right {
            Some(true) => write!(f, ", right"),
            Some(false) => write!(f, ", not labelled"),
            None => Ok(()),
        }
    }
}
