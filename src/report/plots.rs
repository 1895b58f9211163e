//! Charts of one set of scores, beside another's where there is one: for the reports, and as SVG
//! files. Not for: drawing itself (`chart`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Series;
use super::chart::{Axes, bars, grid, lines, standalone};
use crate::Result;
use crate::base::write_whole;
use crate::eval::{Comparison, Confused, CurvePoint, ScoreSection, Scores, SectionRow};

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

/// The other side of a comparison.
pub(crate) struct Beside<'a> {
    /// Names of the two systems.
    pub names: [&'a str; 2],
    /// What they get.
    pub comparison: &'a Comparison,
}

/// All charts that have data: the precision–recall curve, bars for every break-down, and the
/// confusion of relations.
pub(crate) fn plots(scores: &Scores, beside: Option<&Beside<'_>>) -> Vec<Plot> {
    let sections = scores.sections();
    let bars = BARS.iter().filter_map(|chart| {
        let section = sections.iter().find(|section| section.name == chart.0)?;
        Some(Plot {
            name: chart.1,
            title: chart.2.to_owned(),
            definition: section.definition.clone(),
            svg: by_group(section, chart.3, chart.4, beside),
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
    [curve].into_iter().chain(bars).chain([confusion]).filter(|plot| !plot.svg.is_empty()).collect()
}

/// Writes the charts of a set of scores into a folder as SVG files: `precision-recall`,
/// `f1-by-distance` and the other break-downs, `confusion`. Charts without data are left out. With
/// a comparison, bars show both systems, under `names`.
///
/// # Errors
/// The disk.
pub fn write_plots(
    folder: &Path,
    scores: &Scores,
    comparison: Option<&Comparison>,
    names: [&str; 2],
) -> Result<()> {
    let beside = comparison.map(|comparison| Beside { names, comparison });
    for plot in plots(scores, beside.as_ref()) {
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

/// F1 (or recall, where that is all there is) of the rows of a section; nothing where no row has a
/// gold fact.
fn by_group(section: &ScoreSection, x: &str, shared: &str, beside: Option<&Beside<'_>>) -> String {
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
    let own = rows.iter().map(|row| some(row, row.f1.or(row.recall))).collect();
    let names: Vec<String> = rows
        .iter()
        .map(|row| format!("{}\n{}", row.name.replace(shared, ""), row.gold.unwrap_or_default()))
        .collect();
    let Some(beside) = beside.filter(|_| has_f1) else { return bars(&axes, &names, &[y], &[own]) };
    let other: Vec<Option<f64>> = rows
        .iter()
        .map(|row| some(row, f1_of_b(beside.comparison, &section.name, &row.name)))
        .collect();
    match other.iter().any(Option::is_some) {
        true => {
            let [a, b] = [format!("A: {}", beside.names[0]), format!("B: {}", beside.names[1])];
            bars(&axes, &names, &[&a, &b], &[own, other])
        }
        false => bars(&axes, &names, &[y], &[own]),
    }
}

fn f1_of_b(comparison: &Comparison, section: &str, name: &str) -> Option<f64> {
    comparison
        .groups
        .iter()
        .find(|group| group.section == section && group.name == name)
        .map(|group| group.f1_b)
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
    use crate::eval::{GroupComparison, NamedBlock, ScoreBlock};

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
        write_plots(folder.path(), &scores(), None, ["a", "b"]).unwrap();
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
    fn bars_stand_beside_those_of_another_system() {
        let group = GroupComparison {
            section: "distance".into(),
            name: "[0,1)".into(),
            f1_b: 0.25,
            ..GroupComparison::default()
        };
        let comparison = Comparison { groups: vec![group], ..Comparison::default() };
        let plots =
            plots(&scores(), Some(&Beside { names: ["ours", "theirs"], comparison: &comparison }));
        let svg = &plots.iter().find(|plot| plot.name == "f1-by-distance").unwrap().svg;
        assert!(svg.contains(">A: ours<") && svg.contains(">B: theirs<"), "{svg}");
        assert!(
            svg.contains("<title>A: ours · [0,1) · 5: 66.7<")
                && svg.contains("<title>B: theirs · [0,1) · 5: 25.0<"),
            "{svg}"
        );
        // No gold fact is six sentences apart: a gap, not a score of 0.
        assert!(svg.contains("[6,∞)") && !svg.contains("· [6,∞)"), "{svg}");
    }
}
