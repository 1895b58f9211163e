//! All scores as sections of rows with a one-sentence definition each: what the table, the CSV file
//! and the charts show. Not for: computing them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BestPrefix, IgnScores, ListedPairs, NamedBlock, RecallAt, ScoreBlock, Scores};

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
    fn new(
        name: impl Into<String>,
        predicted: usize,
        gold: Option<usize>,
        [precision, recall, f1]: [f64; 3],
    ) -> Self {
        Self {
            name: name.into(),
            predicted: Some(predicted),
            gold,
            precision: Some(precision),
            recall: Some(recall),
            f1: Some(f1),
        }
    }

    fn block(name: impl Into<String>, block: &ScoreBlock) -> Self {
        let scores = [block.precision, block.recall, block.f1];
        Self::new(name, block.predicted, Some(block.gold), scores)
    }

    fn named(blocks: &[NamedBlock]) -> Vec<Self> {
        blocks.iter().map(|named| Self::block(&named.name, &named.block)).collect()
    }

    fn found(name: String, gold: usize, recall: Option<f64>) -> Self {
        Self { name, gold: Some(gold), recall, ..Self::default() }
    }
}

impl Scores {
    /// All sections that have rows, in the order of the table.
    pub fn sections(&self) -> Vec<ScoreSection> {
        let (counts, groups) = (&self.official.counts, &self.breakdown);
        let all = ScoreBlock::new(counts.submitted, counts.gold, counts.correct);
        let sections = [
            (
                "facts",
                "Distinct predictions against distinct gold facts (title, head, tail, relation); \
                 unknown titles count as wrong.",
                vec![SectionRow::block("all facts", &all)],
            ),
            (
                "Ign",
                "Right predictions whose names and relation stand in the training facts leave the \
                 precision; recall stays that of all facts.",
                self.ign(),
            ),
            (
                "evidence",
                "Evidence sentences of right predictions that are gold evidence, of all predicted \
                 ones and of those of all label rows.",
                vec![self.evidence_sentences()],
            ),
            (
                "pairs",
                "Relations of the corpus's list of pairs; a pair without a relation earns nothing, \
                 one that was filtered out is left out.",
                self.listed_pairs(),
            ),
            (
                "filtered",
                "All pairs again, with predictions on pairs that were filtered out counted as \
                 wrong.",
                self.filtered_pairs(),
            ),
            (
                "intra and inter",
                "A fact is intra-sentence if a mention of its head and one of its tail share a \
                 sentence.",
                vec![
                    SectionRow::block("intra-sentence", &groups.intra),
                    SectionRow::block("inter-sentence", &groups.inter),
                ],
            ),
            (
                "distance",
                "Smallest distance in sentences between a mention of the head and one of the tail.",
                SectionRow::named(&groups.distance),
            ),
            (
                "mentions",
                "Mean number of mentions of head and tail.",
                SectionRow::named(&groups.mentions),
            ),
            (
                "frequency",
                "Frequent are the ten relations of Re-DocRED's script; all others are the long \
                 tail.",
                vec![
                    SectionRow::block("frequent relations", &groups.frequent),
                    SectionRow::block("long-tail relations", &groups.long_tail),
                ],
            ),
            (
                "inference",
                "Facts on the sides of triangles head→o, o→tail, head→tail: strict compares those \
                 of both sides; loose, each with all facts of the other; conclusion keeps only \
                 head→tail; gold pairs, the predictions on the pairs of gold triangles.",
                vec![
                    SectionRow::block("infer, members strict", &groups.infer.members_strict),
                    SectionRow::block("infer, members loose", &groups.infer.members_loose),
                    SectionRow::block("infer, conclusion", &groups.infer.conclusion),
                    SectionRow::block("infer, gold pairs", &groups.infer.gold_pairs),
                ],
            ),
            (
                "supporting sentences",
                "Recall of gold facts by their number of distinct evidence sentences.",
                self.evidence_recall(),
            ),
            (
                "thresholds",
                "Prefixes of the list of all scores: the one with the largest F1 (chosen on these \
                 very documents, so optimistic unless they are dev), the same for intra- and \
                 inter-sentence facts apart, and the scores above a threshold from elsewhere.",
                self.thresholds(),
            ),
            (
                "ranker",
                "Labelled facts whose pair is among the best k of its document (N: entities).",
                self.ranker_recall(),
            ),
            (
                "relation",
                "Facts of one relation, most gold facts first.",
                SectionRow::named(&groups.relations),
            ),
        ];
        let with_rows = sections.into_iter().filter(|(_, _, rows)| !rows.is_empty());
        let section = |(name, definition, rows): (&str, &str, _)| ScoreSection {
            name: name.to_owned(),
            definition: definition.to_owned(),
            rows,
        };
        with_rows.map(section).collect()
    }

    fn ign(&self) -> Vec<SectionRow> {
        let (official, counts) = (&self.official, &self.official.counts);
        let kinds = [
            ("Ign (annotated)", official.ign_annotated, counts.correct_in_annotated),
            ("Ign (distant)", official.ign_distant, counts.correct_in_distant),
        ];
        let row = |(name, ign, known): (&str, Option<IgnScores>, usize)| {
            let IgnScores { precision, f1 } = ign?;
            let scores = [precision, official.recall, f1];
            Some(SectionRow::new(name, counts.submitted - known, Some(counts.gold), scores))
        };
        kinds.into_iter().filter_map(row).collect()
    }

    fn evidence_sentences(&self) -> SectionRow {
        let (official, counts) = (&self.official, &self.official.counts);
        SectionRow::new(
            "evidence sentences",
            counts.evidence_predicted,
            Some(counts.evidence_gold),
            [official.evidence_precision, official.evidence_recall, official.evidence_f1],
        )
    }

    fn listed_pairs(&self) -> Vec<SectionRow> {
        let Some(ListedPairs { scores, .. }) = &self.pairs else { return Vec::new() };
        let groups = [
            ("all pairs", Some(scores.overall)),
            ("intra", Some(scores.intra)),
            ("inter", Some(scores.inter)),
            ("inter [1,3)", scores.near),
            ("inter [3,∞)", scores.far),
        ];
        let row = |(name, block): (&str, Option<_>)| Some(SectionRow::block(name, &block?));
        groups.into_iter().filter_map(row).collect()
    }

    fn filtered_pairs(&self) -> Vec<SectionRow> {
        let listed = self.pairs.iter().filter(|listed| listed.predicted_on_filtered > 0);
        listed
            .map(|listed| SectionRow::block("filtered pairs wrong", &listed.counting_filtered))
            .collect()
    }

    fn evidence_recall(&self) -> Vec<SectionRow> {
        let groups = self.breakdown.evidence.iter().filter(|group| group.gold > 0);
        groups
            .map(|group| {
                let name = format!("{} sentences", group.evidence);
                SectionRow::found(name, group.gold, group.recall)
            })
            .collect()
    }

    fn thresholds(&self) -> Vec<SectionRow> {
        let ranking = self.ranking.as_ref();
        let tuned = [
            ("best on these documents", self.threshold),
            ("tuned for intra", ranking.and_then(|ranking| ranking.best_intra)),
            ("tuned for inter", ranking.and_then(|ranking| ranking.best_inter)),
        ];
        let row = |(name, best): (&str, Option<BestPrefix>)| {
            let best = best?;
            let (name, predicted) = (format!("{name}, θ {:.4}", best.theta), best.prefix + 1);
            Some(SectionRow::new(name, predicted, None, [best.precision, best.recall, best.f1]))
        };
        let given = ranking.and_then(|ranking| ranking.given).map(|(theta, at)| {
            let scores = [at.precision, at.recall, at.f1];
            SectionRow::new(format!("given, θ {theta:.4}"), at.kept, None, scores)
        });
        tuned.into_iter().filter_map(row).chain(given).collect()
    }

    fn ranker_recall(&self) -> Vec<SectionRow> {
        let row = |at: &RecallAt| {
            let name = format!("ranker recall at {}", at.k());
            SectionRow::found(name, at.labels.total, Some(at.labels.share))
        };
        self.ranker.iter().map(row).collect()
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
        self.reliability
            .iter()
            .try_for_each(|reliability| writeln!(f, "\ncalibration: {reliability}"))?;
        self.calibrated
            .iter()
            .try_for_each(|calibrated| writeln!(f, "calibrated probabilities: {calibrated}"))
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
