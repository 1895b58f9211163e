//! The page of `evaluate`: tables with their definitions, charts and the comparison, in one file
//! without scripts and without network. Not for: the report of a run (`html`).

use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Value, context};
use serde::Serialize;

use super::html::{page, shown};
use super::plots::plots;
use crate::Result;
use crate::base::write_atomic;
use crate::eval::{
    Comparison, FactRow, OverSeeds, ScoreSection, Scores, SectionRow, SystemScores, row_of,
};

/// Rows of the lists of facts.
const MOST_FACTS: usize = 100;

/// What the page shows.
pub struct EvaluationPage<'a> {
    /// The gold file.
    pub gold: &'a str,
    /// The files that were scored; the scores are of the first.
    pub files: &'a [String],
    /// The scores.
    pub scores: &'a Scores,
    /// All systems, side by side; A and B of a comparison.
    pub systems: &'a [SystemScores],
    /// How the second of two systems differs from the first.
    pub comparison: Option<&'a Comparison>,
    /// Means over all files.
    pub seeds: Option<&'a OverSeeds>,
}

impl EvaluationPage<'_> {
    /// Writes the page.
    ///
    /// # Errors
    /// I/O errors; a bug error if the template does not fit the data.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = self.render()?;
        write_atomic(path, |out| out.write_all(text.as_bytes()))
    }

    fn render(&self) -> Result<String> {
        let comparison = self.comparison.map(cut);
        let left_out = self.comparison.map(|all| {
            [&all.only_a, &all.only_b].map(|facts| facts.len().saturating_sub(MOST_FACTS))
        });
        let names: Vec<&str> = self.systems.iter().map(|system| system.name.as_str()).collect();
        let values = context! {
            title => format!("Scores of {}", self.scores.split),
            gold => self.gold,
            files => Value::from(Serde(self.files)),
            systems => Value::from(Serde(&names)),
            side_by_side => Value::from(Serde(&self.side_by_side())),
            scorer => Value::from(Serde(&self.scores.scorer)),
            documents => self.scores.documents,
            warnings => Value::from(Serde(&self.scores.warnings)),
            tiles => Value::from(Serde(&self.tiles())),
            sections => Value::from(Serde(&self.scores.sections())),
            plots => shown(plots(self.scores, self.systems)),
            comparison => Value::from(Serde(&comparison)),
            left_out => Value::from(Serde(&left_out)),
            seeds => Value::from(Serde(&self.seeds.map(means))),
        };
        page("evaluation.html", values)
    }

    /// The names of the systems; and of each group its section, its name, its gold facts, and what
    /// each system gets, F1 or recall. `None` where a single system is shown.
    fn side_by_side(&self) -> Option<(Vec<&str>, Vec<SideBySideRow>)> {
        if self.systems.is_empty() || self.comparison.is_some() {
            return None;
        }
        let all: Vec<Vec<ScoreSection>> =
            self.systems.iter().map(|system| system.scores.sections()).collect();
        let value = |row: &SectionRow| Some(format!("{:.2}", 100.0 * row.f1.or(row.recall)?));
        let line = |section: &ScoreSection, row: &SectionRow| SideBySideRow {
            section: section.name.clone(),
            group: row.name.clone(),
            gold: row.gold,
            values: all
                .iter()
                .map(|sections| value(row_of(sections, &section.name, &row.name)?))
                .collect(),
        };
        let sections = all[0].iter().filter(|section| section.name != "relation");
        let lines = sections
            .flat_map(|section| section.rows.iter().map(move |row| (section, row)))
            .map(|(section, row)| line(section, row));
        let names = self.systems.iter().map(|system| system.name.as_str()).collect();
        Some((names, lines.collect()))
    }

    /// The few numbers at the top: (label, value, what it means).
    fn tiles(&self) -> Vec<(&'static str, String, String)> {
        let percent = |value: f64| format!("{:.2}", 100.0 * value);
        if self.systems.len() > 1 {
            let f1 = |system: &SystemScores| {
                ("F1", percent(system.scores.official.f1), system.name.clone())
            };
            let first = self.comparison.and_then(|comparison| comparison.groups.first());
            let difference = first.map(|group| {
                let of = &group.bootstrap;
                let [difference, low, high] =
                    [of.difference, of.low, of.high].map(|points| 100.0 * points);
                let meaning = format!("95 % from {low:+.2} to {high:+.2}, p {:.3}", of.p_value);
                ("A − B", format!("{difference:+.2}"), meaning)
            });
            return self.systems.iter().map(f1).chain(difference).collect();
        }
        let (official, counts) = (&self.scores.official, &self.scores.official.counts);
        let mut tiles =
            vec![("F1", percent(official.f1), format!("of {} gold facts", counts.gold))];
        tiles.extend(
            official.ign_annotated.map(|ign| {
                ("Ign F1", percent(ign.f1), "without known facts (annotated)".to_owned())
            }),
        );
        tiles.extend(
            official
                .ign_distant
                .map(|ign| ("Ign F1", percent(ign.f1), "without known facts (distant)".to_owned())),
        );
        tiles.push((
            "precision",
            percent(official.precision),
            format!("of {} predictions", counts.submitted),
        ));
        tiles.push((
            "recall",
            percent(official.recall),
            format!("{} facts are right", counts.correct),
        ));
        tiles.extend(self.scores.pairs.map(|listed| {
            ("F1 on listed pairs", percent(listed.scores.overall.f1), "of the corpus".to_owned())
        }));
        tiles
    }
}

/// A group of facts, and what each system gets of it.
#[derive(Serialize)]
struct SideBySideRow {
    section: String,
    group: String,
    gold: Option<usize>,
    values: Vec<Option<String>>,
}

/// A comparison whose lists of facts are of bearable length.
fn cut(comparison: &Comparison) -> Comparison {
    let first = |facts: &[FactRow]| facts[..facts.len().min(MOST_FACTS)].to_vec();
    Comparison {
        only_a: first(&comparison.only_a),
        only_b: first(&comparison.only_b),
        ..comparison.clone()
    }
}

/// (group, [P, R, F1]) of all rows but those of single relations.
fn means(seeds: &OverSeeds) -> Vec<(&str, [Option<String>; 3])> {
    let rows = seeds.rows.iter().filter(|row| row.section != "relation");
    rows.map(|row| {
        (
            row.group.as_str(),
            [row.precision, row.recall, row.f1].map(|value| value.map(|value| value.to_string())),
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{MeanSd, NamedBlock, ScoreBlock, SeedRow};

    #[test]
    fn the_page_holds_tables_charts_and_both_systems() {
        let mut scores = Scores {
            split: "<dev>".into(),
            warnings: vec!["odd & old".into()],
            documents: 3,
            ..Scores::default()
        };
        scores.official.f1 = 0.5;
        scores.breakdown.distance =
            vec![NamedBlock { name: "[0,1)".into(), block: ScoreBlock::new(4, 5, 3) }];
        let fact = FactRow { title: "a <title>".into(), r: "P17".into(), ..FactRow::default() };
        let comparison = Comparison { only_a: vec![fact; MOST_FACTS + 3], ..Comparison::default() };
        let mean = Some(MeanSd { mean: 0.5, sd: 0.01, n: 2 });
        let seeds = OverSeeds {
            rows: vec![SeedRow { group: "all facts".into(), f1: mean, ..SeedRow::default() }],
            ..OverSeeds::default()
        };
        let files = ["ours.json".to_owned(), "again.json".to_owned()];
        let both = ["A: ours.json", "B: theirs.json"]
            .map(|name| SystemScores { name: name.into(), scores: scores.clone() });
        let page = EvaluationPage {
            gold: "dev.json",
            files: &files,
            scores: &scores,
            systems: &both,
            comparison: Some(&comparison),
            seeds: Some(&seeds),
        };
        let text = page.render().unwrap();
        assert!(
            text.contains("<h1>Scores of &lt;dev&gt;</h1>") && text.contains("odd &amp; old"),
            "{text}"
        );
        assert!(text.contains("<b>50.00</b>") && text.contains("50.00 ± 1.00"), "{text}");
        assert!(text.contains("Smallest distance in sentences between a mention"), "{text}");
        assert!(
            text.contains(">B: theirs.json</text>") && text.contains("103 facts, 100 shown"),
            "{text}"
        );
        assert!(
            text.matches("<figure").count() == 1
                && !text.contains("<title>a")
                && !text.contains("http:"),
            "{text}"
        );
        let many = EvaluationPage { comparison: None, seeds: None, ..page };
        let text = many.render().unwrap();
        // At the top each system has its F1, where one alone has all of its numbers.
        assert!(text.contains("<span>B: theirs.json</span>"), "{text}");
        assert!(!text.contains(">precision</span>"), "{text}");
        assert!(
            text.contains(">A: ours.json</th>\n<th scope=\"col\" class=\"n\">B: theirs.json</th>"),
            "{text}"
        );
        let alone = EvaluationPage { systems: &[], ..many }.render().unwrap();
        assert!(!alone.contains("A and B") && !alone.contains("Over 2 files"), "{alone}");
    }
}
