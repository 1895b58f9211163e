//! Charts of one set of scores: for the report, and as SVG files that stand alone. Not for: drawing itself (`chart`).

use std::collections::BTreeSet;
use std::path::Path;

use super::Series;
use super::chart::{Axes, bars, grid, lines, standalone};
use crate::Result;
use crate::eval::{Breakdown, Confused, CurvePoint, NamedBlock, Scores, write_atomic};

/// Relations that the confusion and the bars by relation show.
const MOST_RELATIONS: usize = 12;

/// Writes the charts of a set of scores into a folder, as SVG: `precision-recall`, `f1-by-distance`, `f1-by-mentions`, `f1-by-relation`,
/// `recall-by-evidence` and `confusion`; those without data are left out.
///
/// # Errors
/// The disk.
pub fn write_plots(folder: &Path, scores: &Scores) -> Result<()> {
    let breakdown = &scores.breakdown;
    let charts = [
        ("precision-recall", precision_recall(&scores.split, &scores.curve)),
        ("f1-by-distance", by_distance(breakdown)),
        ("f1-by-mentions", by_mentions(breakdown)),
        ("f1-by-relation", by_relation(breakdown)),
        ("recall-by-evidence", by_evidence(breakdown)),
        ("confusion", confusion(&scores.confusion)),
    ];
    for (name, svg) in charts.iter().filter(|(_, svg)| !svg.is_empty()) {
        write_atomic(&folder.join(format!("{name}.svg")), |out| out.write_all(standalone(svg).as_bytes()))?;
    }
    Ok(())
}

pub(super) fn precision_recall(split: &str, curve: &[CurvePoint]) -> String {
    let axes = Axes {
        title: "precision by recall",
        x: "recall",
        y: "precision (%)",
        x_range: Some((0.0, 1.0)),
        y_range: Some((0.0, 1.05)),
        percent: true,
        ..Axes::default()
    };
    let points = curve.iter().map(|point| (point.recall, point.precision)).collect();
    lines(&axes, &[Series { name: split.to_owned(), points }])
}

pub(super) fn by_distance(breakdown: &Breakdown) -> String {
    groups("distance in sentences", &breakdown.distance)
}

pub(super) fn by_mentions(breakdown: &Breakdown) -> String {
    groups("mentions of head and tail, mean", &breakdown.mentions)
}

fn by_relation(breakdown: &Breakdown) -> String {
    groups("relation, most gold facts first", &breakdown.relations[..breakdown.relations.len().min(MOST_RELATIONS)])
}

fn groups(x: &str, blocks: &[NamedBlock]) -> String {
    let axes = Axes { title: x, x, y: "F1 (%)", percent: true, ..Axes::default() };
    let names: Vec<_> = blocks.iter().map(|named| named.name.clone()).collect();
    bars(&axes, &names, &["F1"], &[blocks.iter().map(|named| Some(named.block.f1)).collect()])
}

pub(super) fn by_evidence(breakdown: &Breakdown) -> String {
    let axes = Axes { title: "recall by evidence", x: "evidence sentences of the fact", y: "recall (%)", percent: true, ..Axes::default() };
    let names: Vec<_> = breakdown.evidence.iter().map(|row| row.evidence.clone()).collect();
    bars(&axes, &names, &["recall"], &[breakdown.evidence.iter().map(|row| row.recall).collect()])
}

/// The relations that are most often wrong or missed, gold down and predicted across, with what is neither: "none".
pub(super) fn confusion(cells: &[Confused]) -> String {
    let mut weights = std::collections::BTreeMap::<&str, usize>::new();
    for cell in cells {
        let names: BTreeSet<&str> = [&cell.gold, &cell.predicted].into_iter().flatten().map(String::as_str).collect();
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
    let labels: Vec<String> = names.iter().map(|&name| name.to_owned()).chain(["none".to_owned()]).collect();
    let axes = Axes { title: "pairs by gold and predicted relation", x: "predicted", y: "gold", ..Axes::default() };
    if names.is_empty() { String::new() } else { grid(&axes, &labels, &counts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Block;

    #[test]
    fn plots_stand_alone_and_empty_ones_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut scores = Scores::default();
        let cell = |gold: &str, predicted: Option<&str>, pairs| Confused {
            gold: Some(gold.into()),
            predicted: predicted.map(str::to_owned),
            pairs,
        };
        scores.confusion = vec![cell("P17", Some("P17"), 30), cell("P17", Some("<P&9>"), 4), cell("P17", None, 2)];
        scores.breakdown.distance = vec![NamedBlock { name: "[0,1)".into(), block: Block::new(4, 5, 3) }];
        write_plots(folder.path(), &scores).unwrap();
        let mut names: Vec<_> =
            fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["confusion.svg", "f1-by-distance.svg"]);
        let svg = fs_err::read_to_string(folder.path().join("confusion.svg")).unwrap();
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.contains("<style>"), "{svg}");
        assert!(svg.contains("&lt;P&amp;9&gt;") && svg.contains(">30<") && !svg.contains("<P&9>"), "{svg}");
    }
}
