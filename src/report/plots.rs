//! Charts of one set of scores, or of several systems side by side: for the reports, and as SVG
//! files. Not for: drawing itself (`chart`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Series;
use super::chart::{Axes, bars, grid, lines, standalone};
use crate::Result;
use crate::base::write_whole;
use crate::eval::{
    Confused, CurvePoint, Reliability, ScoreSection, Scores, SectionRow, SystemScores, row_of,
};

/// Relations that the confusion and the bars by relation show.
const MOST_RELATIONS: usize = 12;

/// A chart with its name as a file and what a page says about it.
pub(crate) struct Plot {
    pub name: &'static str,
    pub title: String,
    pub definition: String,
    pub svg: String,
}

/// The sections of the table that are drawn as bars: their name, that of the file, the title, the
/// axis, and what all names of rows share.
const BARS: [(&str, &str, &str, &str, &str); 9] = [
    ("pairs", "f1-by-pairs", "F1 on listed pairs", "distance of the arguments in sentences", ""),
    ("intra and inter", "f1-by-reach", "F1 within and across sentences", "reach of the fact", ""),
    ("distance", "f1-by-distance", "F1 by distance", "distance in sentences", ""),
    (
        "mentions",
        "f1-by-mentions",
        "F1 by number of mentions",
        "mentions of head and tail, mean",
        "",
    ),
    ("frequency", "f1-by-frequency", "F1 by frequency of the relation", "relation of the fact", ""),
    (
        "inference",
        "f1-by-inference",
        "F1 on inferred facts",
        "reading of the definition",
        "infer, ",
    ),
    (
        "supporting sentences",
        "recall-by-evidence",
        "Recall by evidence",
        "evidence sentences of the fact",
        " sentences",
    ),
    (
        "ranker",
        "recall-of-ranker",
        "Labels kept by the ranker",
        "kept pairs a document (N: entities)",
        "ranker recall at ",
    ),
    ("relation", "f1-by-relation", "F1 by relation", "relation, most gold facts first", ""),
];

/// All charts that have data: the precision–recall curve, bars for every break-down, and the
/// confusion of relations.
///
/// Bars stand side by side for all `systems`; where there is none, those of `scores` stand alone.
pub(crate) fn plots(scores: &Scores, systems: &[SystemScores]) -> Vec<Plot> {
    let sections = scores.sections();
    let side_by_side: Vec<(&str, Vec<ScoreSection>)> =
        systems.iter().map(|system| (system.name.as_str(), system.scores.sections())).collect();
    let bars = BARS.iter().filter_map(|chart| {
        let section = sections.iter().find(|section| section.name == chart.0)?;
        Some(Plot {
            name: chart.1,
            title: chart.2.to_owned(),
            definition: section.definition.clone(),
            svg: by_group(section, chart.3, chart.4, &side_by_side),
        })
    });
    let curve = Plot {
        name: "precision-recall",
        title: "Precision and recall".to_owned(),
        definition: "Every threshold on the scores; recall divides by all gold facts.".to_owned(),
        svg: precision_recall(&scores.split, &scores.curve),
    };
    let confusion = Plot {
        name: "confusion",
        title: "Relations taken for others".to_owned(),
        definition: "Pairs of entities by gold and predicted relation, the most frequent \
            relations; darker is a larger share of the row."
            .to_owned(),
        svg: confusion(&scores.confusion),
    };
    [curve]
        .into_iter()
        .chain(calibration(scores))
        .chain(bars)
        .chain([confusion])
        .filter(|plot| !plot.svg.is_empty())
        .collect()
}

/// Writes the charts of a set of scores into a folder as SVG files: `precision-recall`,
/// `f1-by-distance` and the other break-downs, `confusion`. Charts without data are left out. Bars
/// show all `systems`, where there are any.
///
/// # Errors
/// The disk.
pub fn write_plots(folder: &Path, scores: &Scores, systems: &[SystemScores]) -> Result<()> {
    for plot in plots(scores, systems) {
        let path = folder.join(format!("{}.svg", plot.name));
        write_whole(&path, standalone(&plot.svg).as_bytes())?;
    }
    Ok(())
}

fn precision_recall(split: &str, curve: &[CurvePoint]) -> String {
    let axes = Axes {
        title: "precision by recall",
        x: "recall (%)",
        y: "precision (%)",
        x_range: Some((0.0, 100.0)),
        y_range: Some((0.0, 1.05)),
        percent: true,
        ..Axes::default()
    };
    let points = curve.iter().map(|point| (100.0 * point.recall, point.precision)).collect();
    lines(&axes, &[Series { name: split.to_owned(), points }])
}

/// How often candidates are right by their score, and how many of the most certain predictions are
/// wrong; by the calibrated probability too, where there is one.
fn calibration(scores: &Scores) -> Vec<Plot> {
    let both = [("measured", &scores.reliability), ("calibrated", &scores.calibrated)];
    let judged: Vec<(&str, &Reliability)> =
        both.into_iter().filter_map(|(name, one)| Some((name, one.as_ref()?))).collect();
    if judged.is_empty() {
        return Vec::new();
    }
    let by_bin = |&(name, one): &(&str, &Reliability)| Series {
        name: name.to_owned(),
        points: one.bins.iter().rev().map(|bin| (100.0 * bin.score, bin.right)).collect(),
    };
    let honest = Series { name: "as stated".to_owned(), points: vec![(0.0, 0.0), (100.0, 1.0)] };
    let bins: Vec<Series> = judged.iter().map(by_bin).chain([honest]).collect();
    let axes = Axes {
        title: "right candidates by score",
        x: "score (%)",
        y: "right (%)",
        x_range: Some((0.0, 100.0)),
        y_range: Some((0.0, 1.05)),
        percent: true,
        dots: true,
    };
    let by_coverage = |&(name, one): &(&str, &Reliability)| Series {
        name: if name == "measured" { "predictions" } else { name }.to_owned(),
        points: one.risk_coverage.iter().map(|at| (100.0 * at.coverage, at.risk)).collect(),
    };
    let risks: Vec<Series> = judged.iter().map(by_coverage).collect();
    let errors = |(name, one): &(&str, &Reliability)| {
        let (ece, loss) = (100.0 * one.ece, one.log_loss);
        format!("; {name}: expected calibration error {ece:.1} %, log loss {loss:.3}")
    };
    let risk_axes = Axes {
        title: "wrong predictions by coverage",
        x: "predictions made, most certain first (%)",
        y: "wrong (%)",
        x_range: Some((0.0, 100.0)),
        percent: true,
        ..Axes::default()
    };
    vec![
        Plot {
            name: "reliability",
            title: "Calibration".to_owned(),
            definition: format!(
                "Pairs and relations with a score of at least 1 %, in bins of equal mass{}.",
                judged.iter().map(errors).collect::<String>()
            ),
            svg: lines(&axes, &bins),
        },
        Plot {
            name: "risk-coverage",
            title: "Risk by coverage".to_owned(),
            definition: "What share of the predictions is wrong if only the most certain ones are \
                made."
                .to_owned(),
            svg: lines(&risk_axes, &risks),
        },
    ]
}

/// F1 (or recall, where that is all there is) of the rows of a section; nothing where no row has a
/// gold fact.
fn by_group(
    section: &ScoreSection,
    x: &str,
    shared: &str,
    systems: &[(&str, Vec<ScoreSection>)],
) -> String {
    let rows = &section.rows[..section.rows.len().min(if section.name == "relation" {
        MOST_RELATIONS
    } else {
        usize::MAX
    })];
    if rows.iter().all(|row| row.gold.unwrap_or_default() == 0) {
        return String::new();
    }
    let has_f1 = rows.iter().any(|row| row.f1.is_some());
    let (y, x) = (if has_f1 { "F1 (%)" } else { "recall (%)" }, format!("{x}; below: gold facts"));
    let axes = Axes { title: &section.definition, x: &x, y, percent: true, ..Axes::default() };
    // A group without gold facts has no score, which is not a score of 0.
    let some = |row: &SectionRow, value: Option<f64>| value.filter(|_| row.gold != Some(0));
    let value = |row: &SectionRow| some(row, row.f1.or(row.recall));
    let names: Vec<String> = rows
        .iter()
        .map(|row| format!("{}\n{}", row.name.replace(shared, ""), row.gold.unwrap_or_default()))
        .collect();
    if systems.is_empty() {
        return bars(&axes, &names, &[y], &[rows.iter().map(value).collect()]);
    }
    let of = |(_, sections): &(&str, Vec<ScoreSection>)| -> Vec<Option<f64>> {
        let row = |row: &SectionRow| value(row_of(sections, &section.name, &row.name)?);
        rows.iter().map(row).collect()
    };
    let legend: Vec<&str> = systems.iter().map(|(name, _)| *name).collect();
    bars(&axes, &names, &legend, &systems.iter().map(of).collect::<Vec<_>>())
}

/// The relations that are most often wrong or missed, gold down and predicted across, with what is
/// neither: "none".
fn confusion(cells: &[Confused]) -> String {
    let mut weights = BTreeMap::<&str, usize>::new();
    for cell in cells {
        let names: BTreeSet<&str> =
            [&cell.gold, &cell.predicted].into_iter().flatten().map(String::as_str).collect();
        names.into_iter().for_each(|name| *weights.entry(name).or_default() += cell.pairs);
    }
    let mut names: Vec<&str> = weights.keys().copied().collect();
    names.sort_by_key(|name| std::cmp::Reverse(weights[name]));
    names.truncate(MOST_RELATIONS);
    let place = |name: &Option<String>| match name {
        Some(name) => names.iter().position(|shown| shown == name),
        None => Some(names.len()),
    };
    let mut counts = vec![vec![0; names.len() + 1]; names.len() + 1];
    for cell in cells {
        if let (Some(row), Some(column)) = (place(&cell.gold), place(&cell.predicted)) {
            counts[row][column] += cell.pairs;
        }
    }
    let labels: Vec<String> =
        names.iter().map(|&name| name.to_owned()).chain(["none".to_owned()]).collect();
    let axes = Axes {
        title: "pairs by gold and predicted relation",
        x: "predicted",
        y: "gold",
        ..Axes::default()
    };
    if names.is_empty() { String::new() } else { grid(&axes, &labels, &counts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{EvidenceRecall, NamedBlock, ScoreBlock};

    fn scores() -> Scores {
        let mut scores = Scores::default();
        let cell = |gold: &str, predicted: Option<&str>, pairs| Confused {
            gold: Some(gold.into()),
            predicted: predicted.map(str::to_owned),
            pairs,
        };
        scores.confusion =
            vec![cell("P17", Some("P17"), 30), cell("P17", Some("<P&9>"), 4), cell("P17", None, 2)];
        let named = |name: &str, block| NamedBlock { name: name.into(), block };
        scores.breakdown.distance = vec![
            named("[0,1)", ScoreBlock::new(4, 5, 3)),
            named("[6,∞)", ScoreBlock::new(2, 0, 0)),
        ];
        scores
    }

    #[test]
    fn plots_stand_alone_and_empty_ones_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        write_plots(folder.path(), &scores(), &[]).unwrap();
        let mut names: Vec<_> = fs_err::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["confusion.svg", "f1-by-distance.svg"]);
        let svg = fs_err::read_to_string(folder.path().join("confusion.svg")).unwrap();
        assert!(
            svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.contains("<style>"),
            "{svg}"
        );
        assert!(
            svg.contains("&lt;P&amp;9&gt;") && svg.contains(">30<") && !svg.contains("<P&9>"),
            "{svg}"
        );
    }

    #[test]
    fn bars_of_all_systems_stand_side_by_side_under_their_names() {
        let system = |name: &str, correct: usize| {
            let mut scores = scores();
            scores.breakdown.distance[0].block = ScoreBlock::new(4, 5, correct);
            scores.breakdown.infer.conclusion = ScoreBlock::new(4, 4, correct);
            scores.breakdown.evidence = vec![EvidenceRecall {
                evidence: "2".into(),
                gold: 4,
                found: correct,
                recall: Some(correct as f64 / 4.0),
            }];
            SystemScores { name: name.into(), scores }
        };
        let systems = [system("ours", 3), system("theirs", 1), system("w/o ECA", 2)];
        let plots = plots(&systems[0].scores, &systems);
        let svg = |name: &str| &plots.iter().find(|plot| plot.name == name).unwrap().svg;
        for (chart, group, values) in [
            ("f1-by-distance", "[0,1) · 5", ["66.7", "22.2", "44.4"]),
            ("f1-by-inference", "conclusion · 4", ["75.0", "25.0", "50.0"]),
            ("recall-by-evidence", "2 · 4", ["75.0", "25.0", "50.0"]),
        ] {
            let svg = svg(chart);
            for (name, value) in ["ours", "theirs", "w/o ECA"].iter().zip(values) {
                assert!(svg.contains(&format!(">{name}<")), "{chart}: {svg}");
                assert!(svg.contains(&format!("<title>{name} · {group}: {value}<")), "{svg}");
            }
        }
        // No gold fact is six sentences apart: a gap, not a score of 0.
        let distance = svg("f1-by-distance");
        assert!(distance.contains("[6,∞)") && !distance.contains("· [6,∞)"), "{distance}");
    }
}
