//! Everything that is known about one set of predictions, as `scores.json` holds it and as a table for people.
//! Not for: computing (`docred`, `breakdown`, `threshold`, `ranker`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::breakdown::{Breakdown, BreakdownOptions, breakdown};
use super::docred::{FactSets, OfficialScores, Scorer, score};
use super::{BestPrefix, Block, CurvePoint, Gold, Prediction, RecallAt};

/// How to evaluate.
#[derive(Clone, Debug, Default)]
pub struct EvaluateOptions<'a> {
    /// The facts that Ign F1 ignores.
    pub facts: FactSets<'a>,
    /// The script to follow.
    pub scorer: Scorer,
    /// Groups of the break-downs.
    pub groups: BreakdownOptions,
}

/// All scores of one set of predictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scores {
    /// What was scored (`dev`, `test`, a file name).
    pub split: String,
    /// The script that was followed.
    pub scorer: Scorer,
    /// Gold documents.
    pub documents: usize,
    /// What the official script reports.
    pub official: OfficialScores,
    /// Break-downs.
    pub breakdown: Breakdown,
    /// The threshold, where one was chosen on these scores.
    pub threshold: Option<BestPrefix>,
    /// Precision–recall curve, where facts were scored.
    pub curve: Vec<CurvePoint>,
    /// What the ranker's pruning kept, where there was one.
    pub ranker: Vec<RecallAt>,
}

/// Scores predictions in every way that needs no more than the predictions; the caller adds threshold, curve and ranker.
pub fn evaluate(split: &str, gold: &Gold<'_>, predictions: &[Prediction], options: &EvaluateOptions<'_>) -> Scores {
    Scores {
        split: split.to_owned(),
        scorer: options.scorer,
        documents: gold.documents().len(),
        official: score(gold, predictions, options.facts, options.scorer),
        breakdown: breakdown(gold, predictions, &options.groups),
        ..Scores::default()
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (official, counts) = (&self.official, &self.official.counts);
        writeln!(f, "{}: {} documents, {} gold facts, {} predicted", self.split, self.documents, counts.gold, counts.submitted)?;
        if counts.unknown_title > 0 {
            writeln!(f, "  {} predictions name a document that is not in the gold set; they count as wrong", counts.unknown_title)?;
        }
        writeln!(f, "{:<28}{:>8}{:>8}{:>8}{:>9}", "", "P", "R", "F1", "facts")?;
        let all = Block::new(counts.submitted, counts.gold, counts.correct);
        row(f, "all facts", &all)?;
        for (name, ign) in [("Ign (annotated)", official.ign_annotated), ("Ign (distant)", official.ign_distant)] {
            if let Some(ign) = ign {
                line(f, name, ign.precision, official.recall, ign.f1, "")?;
            }
        }
        let (p, r) = (official.evidence_precision, official.evidence_recall);
        line(f, "evidence sentences", p, r, official.evidence_f1, &counts.evidence_gold.to_string())?;
        self.write_groups(f)?;
        self.write_rest(f)
    }
}

impl Scores {
    fn write_groups(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = &self.breakdown;
        row(f, "intra-sentence", &groups.intra)?;
        row(f, "inter-sentence", &groups.inter)?;
        for named in &groups.distance {
            row(f, &format!("distance {}", named.name), &named.block)?;
        }
        for named in &groups.mentions {
            row(f, &format!("mentions {}", named.name), &named.block)?;
        }
        row(f, "frequent relations", &groups.frequent)?;
        row(f, "long-tail relations", &groups.long_tail)?;
        row(f, "infer, members strict", &groups.infer.members_strict)?;
        row(f, "infer, members loose", &groups.infer.members_loose)?;
        row(f, "infer, conclusion", &groups.infer.conclusion)?;
        row(f, "infer, gold pairs", &groups.infer.gold_pairs)
    }

    fn write_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.breakdown.evidence {
            if let Some(recall) = group.recall {
                let name = format!("recall, {} evidence", group.evidence);
                writeln!(f, "{name:<28}{:>8}{:>8.2}{:>8}{:>9}", "", 100.0 * recall, "", group.gold)?;
            }
        }
        if let Some(best) = &self.threshold {
            writeln!(f, "best threshold {:.4}: F1 {:.2}, area under the curve {:.4}", best.theta, 100.0 * best.f1, best.auc)?;
        }
        for at in &self.ranker {
            writeln!(
                f,
                "ranker recall at {:<4} {:>6.2} ({:.1} pairs a document)",
                at.keep,
                100.0 * at.labels.share,
                at.pairs_per_document
            )?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, block: &Block) -> fmt::Result {
    line(f, name, block.precision, block.recall, block.f1, &block.gold.to_string())
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, precision: f64, recall: f64, f1: f64, facts: &str) -> fmt::Result {
    writeln!(f, "{name:<28}{:>8.2}{:>8.2}{:>8.2}{facts:>9}", 100.0 * precision, 100.0 * recall, 100.0 * f1)
}

#[cfg(test)]
mod tests {
    use super::super::Keep;
    use super::super::ranker::{RankedDocument, recall_at};
    use super::super::testing::{document, fact};
    use super::*;

    #[test]
    fn table_and_json() {
        let mut one = document("a", &[&[0], &[0], &[1]]);
        one.facts = Some(vec![fact(0, 1, "P17", &[0]), fact(0, 2, "P9", &[])]);
        let documents = [one];
        let gold = Gold::new(&documents).unwrap();
        let predict = |title: &str, t_idx| Prediction { title: title.into(), t_idx, r: "P17".into(), ..Prediction::default() };
        let mut scores = evaluate("dev", &gold, &[predict("a", 1), predict("z", 1)], &EvaluateOptions::default());
        scores.ranker = recall_at(&[RankedDocument::default()], &[Keep::Times(2)]);
        let table = scores.to_string();
        assert!(table.starts_with("dev: 1 documents, 2 gold facts, 2 predicted\n  1 predictions name a document"), "{table}");
        assert!(table.contains("all facts                      50.00   50.00   50.00        2\n"), "{table}");
        assert!(table.contains("intra-sentence                100.00  100.00  100.00        1\n"), "{table}");
        assert!(table.contains("ranker recall at 2N"), "{table}");
        let json = serde_json::to_string(&scores).unwrap();
        assert_eq!(serde_json::from_str::<Scores>(&json).unwrap(), scores);
    }
}
