//! The scores that a column of a table can show. Not for: computing them (`eval`).

use crate::eval::Scores;
use crate::{Error, Result};

/// A score by its name: how it is called in a heading, and where it lies in the scores of a split.
type Score = (&'static str, &'static str, fn(&Scores) -> Option<f64>);

/// All scores.
const SCORES: [Score; 9] = [
    ("f1", "F1", |scores| Some(scores.official.f1)),
    ("precision", "P", |scores| Some(scores.official.precision)),
    ("recall", "R", |scores| Some(scores.official.recall)),
    ("ign_f1", "Ign F1", |scores| scores.official.ign_annotated.map(|ign| ign.f1)),
    ("intra_f1", "Intra F1", |scores| Some(scores.breakdown.intra.f1)),
    ("inter_f1", "Inter F1", |scores| Some(scores.breakdown.inter.f1)),
    ("infer_f1", "Infer F1", |scores| Some(scores.breakdown.infer.members_strict.f1)),
    ("infer_precision", "Infer P", |scores| Some(scores.breakdown.infer.members_strict.precision)),
    ("infer_recall", "Infer R", |scores| Some(scores.breakdown.infer.members_strict.recall)),
];

/// The splits that are scored.
const SPLITS: [&str; 2] = ["dev", "test"];

/// A column: a score of a split.
#[derive(Clone, Debug)]
pub struct Column {
    /// As the file names it, such as `dev.ign_f1`.
    pub key: String,
    /// The heading.
    pub heading: String,
    /// The split.
    pub split: &'static str,
    /// Takes the score out of those of the split, as a fraction.
    pub value: fn(&Scores) -> Option<f64>,
}

impl Column {
    /// The column of a key.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown key, with the nearest known one.
    pub fn parse(key: &str) -> Result<Self> {
        for split in SPLITS {
            for (name, heading, value) in SCORES {
                if key == format!("{split}.{name}") {
                    let heading = format!("{split} {heading}");
                    return Ok(Self { key: key.to_owned(), heading, split, value });
                }
            }
        }
        let known =
            SPLITS.iter().flat_map(|split| SCORES.map(|score| format!("{split}.{}", score.0)));
        let nearest = known
            .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        Err(Error::recipe(format!("unknown column `{key}`"))
            .with_hint(format!("did you mean `{}`?", nearest.unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::IgnScores;

    #[test]
    fn a_column_takes_its_score_and_an_unknown_one_is_answered_with_the_nearest() {
        let mut scores = Scores::default();
        scores.official.f1 = 0.5;
        scores.official.ign_annotated = Some(IgnScores { precision: 0.2, f1: 0.25 });
        scores.breakdown.infer.members_strict.recall = 0.75;
        let value = |key: &str| {
            let column = Column::parse(key).unwrap();
            (column.heading.clone(), (column.value)(&scores))
        };
        assert_eq!(value("dev.f1"), ("dev F1".to_owned(), Some(0.5)));
        assert_eq!(value("test.ign_f1"), ("test Ign F1".to_owned(), Some(0.25)));
        assert_eq!(value("dev.infer_recall"), ("dev Infer R".to_owned(), Some(0.75)));
        let error = Column::parse("dev.ignf1").unwrap_err();
        assert_eq!((error.exit_code(), error.hint()), (64, Some("did you mean `dev.ign_f1`?")));
    }
}
