//! All scores as sections of rows with a one-sentence definition each: what the table, the CSV file
//! and the charts show. Not for: computing them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{NamedBlock, ScoreBlock, Scores};

/// Rows that belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreSection {
    /// Name.
    pub name: String,
    /// What is counted, in one sentence.
    pub definition: String,
    /// The rows.
    pub rows: Vec<SectionRow>,
}

/// Scores of one group; what a group does not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SectionRow {
    /// The group.
    pub name: String,
    /// Predictions in the group.
    pub predicted: Option<usize>,
    /// Gold facts in the group.
    pub gold: Option<usize>,
    /// Precision.
    pub precision: Option<f64>,
    /// Recall.
    pub recall: Option<f64>,
    /// F1.
    pub f1: Option<f64>,
}

impl SectionRow {
    fn block(name: impl Into<String>, block: &ScoreBlock) -> Self {
        Self {
            name: name.into(),
            predicted: Some(block.predicted),
            gold: Some(block.gold),
            precision: Some(block.precision),
            recall: Some(block.recall),
            f1: Some(block.f1),
        }
    }

    fn named(blocks: &[NamedBlock]) -> Vec<Self> {
        blocks.iter().map(|named| Self::block(&named.name, &named.block)).collect()
    }
}

fn section(name: &str, definition: &str, rows: Vec<SectionRow>) -> ScoreSection {
    ScoreSection { name: name.to_owned(), definition: definition.to_owned(), rows }
}

impl Scores {
    /// All sections that have rows, in the order of the table.
    pub fn sections(&self) -> Vec<ScoreSection> {
        let groups = &self.breakdown;
        let mut sections = vec![
            self.all_facts(),
            self.ign(),
            self.evidence_sentences(),
            self.listed_pairs(),
            self.filtered_pairs(),
        ];
        sections.push(section(
            "intra and inter",
            "A fact is intra-sentence if a mention of its head and one of its tail share a \
             sentence.",
            vec![
                SectionRow::block("intra-sentence", &groups.intra),
                SectionRow::block("inter-sentence", &groups.inter),
            ],
        ));
        sections.push(section(
            "distance",
            "Smallest distance in sentences between a mention of the head and one of the tail.",
            SectionRow::named(&groups.distance),
        ));
        sections.push(section(
            "mentions",
            "Mean number of mentions of head and tail.",
            SectionRow::named(&groups.mentions),
        ));
        sections.push(section(
            "frequency",
            "Frequent are the ten relations of Re-DocRED's script; all others are the long tail.",
            vec![
                SectionRow::block("frequent relations", &groups.frequent),
                SectionRow::block("long-tail relations", &groups.long_tail),
            ],
        ));
        sections.push(self.inference());
        sections.push(self.evidence_recall());
        sections.push(self.thresholds());
        sections.push(self.ranker_recall());
        sections.push(section(
            "relation",
            "Facts of one relation, most gold facts first.",
            SectionRow::named(&groups.relations),
        ));
        sections.retain(|section| !section.rows.is_empty());
        sections
    }

    fn all_facts(&self) -> ScoreSection {
        let counts = &self.official.counts;
        let definition = "Distinct predictions against distinct gold facts (title, head, tail, \
            relation); unknown titles count as wrong.";
        let all = ScoreBlock::new(counts.submitted, counts.gold, counts.correct);
        section("facts", definition, vec![SectionRow::block("all facts", &all)])
    }

    fn ign(&self) -> ScoreSection {
        let counts = &self.official.counts;
        let row = |name: &str, ign: super::IgnScores, known| SectionRow {
            name: name.to_owned(),
            predicted: Some(counts.submitted - known),
            gold: Some(counts.gold),
            precision: Some(ign.precision),
            recall: Some(self.official.recall),
            f1: Some(ign.f1),
        };
        let annotated = self
            .official
            .ign_annotated
            .map(|ign| row("Ign (annotated)", ign, counts.correct_in_annotated));
        let distant = self
            .official
            .ign_distant
            .map(|ign| row("Ign (distant)", ign, counts.correct_in_distant));
        let definition = "Right predictions whose names and relation stand in the training facts \
            leave the precision; recall stays that of all facts.";
        section("Ign", definition, annotated.into_iter().chain(distant).collect())
    }

    fn evidence_sentences(&self) -> ScoreSection {
        let (official, counts) = (&self.official, &self.official.counts);
        let row = SectionRow {
            name: "evidence sentences".to_owned(),
            predicted: Some(counts.evidence_predicted),
            gold: Some(counts.evidence_gold),
            precision: Some(official.evidence_precision),
            recall: Some(official.evidence_recall),
            f1: Some(official.evidence_f1),
        };
        let definition = "Evidence sentences of right predictions that are gold evidence, of all \
            predicted ones and of those of all label rows.";
        section("evidence", definition, vec![row])
    }

    fn listed_pairs(&self) -> ScoreSection {
        let Some(listed) = &self.pairs else { return ScoreSection::default() };
        let scores = &listed.scores;
        let mut rows = vec![
            SectionRow::block("all pairs", &scores.overall),
            SectionRow::block("intra", &scores.intra),
            SectionRow::block("inter", &scores.inter),
        ];
        rows.extend(scores.near.as_ref().map(|block| SectionRow::block("inter [1,3)", block)));
        rows.extend(scores.far.as_ref().map(|block| SectionRow::block("inter [3,∞)", block)));
        section(
            "pairs",
            "Relations of the corpus's list of pairs; a pair without a relation earns nothing, one \
             that was filtered out is left out.",
            rows,
        )
    }

    fn filtered_pairs(&self) -> ScoreSection {
        let listed = self.pairs.filter(|listed| listed.predicted_on_filtered > 0);
        let rows = listed
            .map(|listed| SectionRow::block("filtered pairs wrong", &listed.counting_filtered))
            .into_iter()
            .collect();
        section(
            "filtered",
            "All pairs again, with predictions on pairs that were filtered out counted as wrong.",
            rows,
        )
    }

    fn inference(&self) -> ScoreSection {
        let infer = &self.breakdown.infer;
        let rows = [
            ("infer, members strict", &infer.members_strict),
            ("infer, members loose", &infer.members_loose),
            ("infer, conclusion", &infer.conclusion),
            ("infer, gold pairs", &infer.gold_pairs),
        ];
        section(
            "inference",
            "Facts on the sides of triangles head→o, o→tail, head→tail: strict compares those of \
             both sides; loose, each with all facts of the other; conclusion keeps only head→tail; \
             gold pairs, the predictions on the pairs of gold triangles.",
            rows.map(|(name, block)| SectionRow::block(name, block)).to_vec(),
        )
    }

    fn evidence_recall(&self) -> ScoreSection {
        let row = |group: &super::EvidenceRecall| SectionRow {
            name: format!("{} sentences", group.evidence),
            gold: Some(group.gold),
            recall: group.recall,
            ..SectionRow::default()
        };
        let groups = self.breakdown.evidence.iter().filter(|group| group.gold > 0);
        section(
            "supporting sentences",
            "Recall of gold facts by their number of distinct evidence sentences.",
            groups.map(row).collect(),
        )
    }

    fn thresholds(&self) -> ScoreSection {
        let best = |name: &str, best: &super::BestPrefix| SectionRow {
            name: format!("{name}, θ {:.4}", best.theta),
            predicted: Some(best.prefix + 1),
            gold: None,
            precision: Some(best.precision),
            recall: Some(best.recall),
            f1: Some(best.f1),
        };
        let ranking = self.ranking.as_ref();
        let mut rows: Vec<SectionRow> =
            self.threshold.iter().map(|found| best("best on these documents", found)).collect();
        rows.extend(
            ranking
                .and_then(|ranking| ranking.best_intra.as_ref())
                .map(|found| best("tuned for intra", found)),
        );
        rows.extend(
            ranking
                .and_then(|ranking| ranking.best_inter.as_ref())
                .map(|found| best("tuned for inter", found)),
        );
        rows.extend(ranking.and_then(|ranking| ranking.given).map(|(theta, at)| SectionRow {
            name: format!("given, θ {theta:.4}"),
            predicted: Some(at.kept),
            gold: None,
            precision: Some(at.precision),
            recall: Some(at.recall),
            f1: Some(at.f1),
        }));
        section(
            "thresholds",
            "Prefixes of the list of all scores: the one with the largest F1 (chosen on these very \
             documents, so optimistic unless they are dev), the same for intra- and inter-sentence \
             facts apart, and the scores above a threshold from elsewhere.",
            rows,
        )
    }

    fn ranker_recall(&self) -> ScoreSection {
        let row = |at: &super::RecallAt| SectionRow {
            name: format!("ranker recall at {}", at.k()),
            gold: Some(at.labels.total),
            recall: Some(at.labels.share),
            ..SectionRow::default()
        };
        section(
            "ranker",
            "Labelled facts whose pair is among the best k of its document (N: entities).",
            self.ranker.iter().map(row).collect(),
        )
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.official.counts;
        writeln!(
            f,
            "{}: {} documents, {} gold facts, {} predicted",
            self.split, self.documents, counts.gold, counts.submitted
        )?;
        for warning in &self.warnings {
            writeln!(f, "  {warning}")?;
        }
        writeln!(f, "{}", heads())?;
        for section in self.sections() {
            write!(f, "{section}")?;
        }
        Ok(())
    }
}

/// Rows of the section by relation that a table shows; all are in the CSV and JSON files.
const RELATIONS_SHOWN: usize = 10;

impl fmt::Display for ScoreSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {}", self.name, self.definition)?;
        let shown = if self.name == "relation" { RELATIONS_SHOWN } else { usize::MAX };
        for row in self.rows.iter().take(shown) {
            write!(f, "{row}")?;
        }
        match self.rows.len().saturating_sub(shown) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more (--json and --csv have all)"),
        }
    }
}

impl fmt::Display for SectionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<36}", self.name)?;
        for value in [self.precision, self.recall, self.f1] {
            write!(
                f,
                "{:>8}",
                value.map_or_else(String::new, |value| format!("{:.2}", 100.0 * value))
            )?;
        }
        for count in [self.predicted, self.gold] {
            write!(f, "{:>10}", count.map_or_else(String::new, |count| count.to_string()))?;
        }
        writeln!(f)
    }
}

/// The headings of the columns of a [`SectionRow`].
fn heads() -> String {
    format!("{:<36}{:>8}{:>8}{:>8}{:>10}{:>10}", "", "P", "R", "F1", "predicted", "gold")
}

/// All rows as CSV with a line of names: `section,group,predicted,gold,precision,recall,f1`;
/// fractions, empty where there is no value.
pub fn to_csv(sections: &[ScoreSection]) -> String {
    let mut out = "section,group,predicted,gold,precision,recall,f1\n".to_owned();
    for section in sections {
        for row in &section.rows {
            let counts = [row.predicted, row.gold]
                .map(|count| count.map_or_else(String::new, |count| count.to_string()));
            let shares = [row.precision, row.recall, row.f1]
                .map(|share| share.map_or_else(String::new, |share| share.to_string()));
            let names = [quoted(&section.name), quoted(&row.name)];
            out += &[names.as_slice(), &counts, &shares].concat().join(",");
            out.push('\n');
        }
    }
    out
}

/// A field of a CSV file, in quotation marks where it needs them.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_it_must() {
        let rows = vec![SectionRow {
            name: "[1,3)".into(),
            gold: Some(4),
            recall: Some(0.25),
            ..SectionRow::default()
        }];
        let csv =
            to_csv(&[ScoreSection { name: "a \"b\"".into(), definition: String::new(), rows }]);
        assert_eq!(
            csv,
            "section,group,predicted,gold,precision,recall,f1\n\"a \
             \"\"b\"\"\",\"[1,3)\",,4,,0.25,\n"
        );
    }

    #[test]
    fn every_section_is_defined() {
        let sections = Scores::default().sections();
        assert!(sections.len() >= 4, "{sections:?}");
        assert!(
            sections
                .iter()
                .all(|section| section.definition.ends_with('.') && !section.rows.is_empty())
        );
    }
}
