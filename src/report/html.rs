//! `report.html`: one self-contained page without scripts and without network. Not for: collecting
//! its data (the stages do that).

use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

use super::chart::{Axes, bars, lines, style};
use super::plots::{Plot, plots};
use super::{RelationLabels, ReportData, Series};
use crate::base::write_atomic;
use crate::eval::{RecallAt, Scores};
use crate::sampling::KeptPairs;
use crate::{Error, Result};

/// The pages and what they share.
const TEMPLATES: [(&str, &str); 7] = [
    ("report.html", include_str!("template.html")),
    ("evaluation.html", include_str!("evaluation.html")),
    ("audit.html", include_str!("audit.html")),
    ("table.html", include_str!("table.html")),
    ("live.html", include_str!("live.html")),
    ("head.html", include_str!("head.html")),
    ("macros.html", include_str!("macros.html")),
];
/// Rows that the long tables show; the page says how many were left out.
const MOST_ROWS: usize = 40;

/// The page as text.
///
/// # Errors
/// A bug error if the template does not fit the data.
pub fn render(data: &ReportData) -> Result<String> {
    let shown = cut(data);
    let title = if data.title.is_empty() { "Run report" } else { &data.title };
    let values = context! {
        title,
        data => Value::from(Serde(&shown)),
        left_out_dropped => data.dropped.len() - shown.dropped.len(),
        left_out_relations => relations(data) - relations(&shown),
        left_out_labels => data.relation_labels.len() - shown.relation_labels.len(),
        labels => shown.relation_labels.iter().map(shares).collect::<Vec<_>>(),
        tiles => tiles(data),
        keeps => data.ranker.iter().map(RecallAt::k).collect::<Vec<_>>(),
        keeps_gold => data.ranker_gold.iter().map(RecallAt::k).collect::<Vec<_>>(),
        charts => charts(data),
    };
    page("report.html", values)
}

/// One of the pages, filled in.
pub(super) fn page(name: &str, values: Value) -> Result<String> {
    let mut pages = Environment::new();
    pages.add_filter("percent", percent);
    pages.add_filter("decimal", decimal);
    pages.add_filter("duration", duration);
    pages.add_filter("count", count);
    // Values are escaped because the names end in `.html`; only drawings and their rules are marked
    // as safe.
    for (name, text) in TEMPLATES {
        pages.add_template(name, text).map_err(|error| as_bug(&error))?;
    }
    let drawings = Value::from_safe_string(style(|name| format!("var(--{name})")));
    let common = context! { version => env!("CARGO_PKG_VERSION"), drawings };
    let page = pages.get_template(name).map_err(|error| as_bug(&error))?;
    page.render(context! { ..values, ..common }).map_err(|error| as_bug(&error))
}

/// Charts for a page: `chart` escapes every text that it draws.
pub(super) fn shown(plots: Vec<Plot>) -> Vec<Value> {
    let safe = |Plot { title, definition, svg, .. }: Plot| {
        context! { title, definition, svg => Value::from_safe_string(svg) }
    };
    plots.into_iter().map(safe).collect()
}

/// Writes the page.
///
/// # Errors
/// I/O errors, and those of [`render`].
pub fn write_report(path: &Path, data: &ReportData) -> Result<()> {
    let page = render(data)?;
    write_atomic(path, |out| out.write_all(page.as_bytes()))
}

fn as_bug(error: &minijinja::Error) -> Error {
    Error::Bug(format!("report template: {error:#}"))
}

/// The data without the ends of its long tables, and without what only the drawings need.
fn cut(data: &ReportData) -> ReportData {
    let mut shown = ReportData {
        losses: Vec::new(),
        curve: Vec::new(),
        reliability: None,
        calibrated: None,
        learning: Vec::new(),
        confusion: Vec::new(),
        ..data.clone()
    };
    shown.dropped.truncate(MOST_ROWS);
    shown.relation_labels.truncate(MOST_ROWS);
    if let Some(breakdown) = &mut shown.breakdown {
        breakdown.relations.truncate(MOST_ROWS);
    }
    shown
}

/// Shares of a relation's labels: kept of all, true of all, true of the kept.
fn shares(relation: &RelationLabels) -> Value {
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    context! {
        kept => relation.share(),
        truths => relation.truths.map(|count| share(count, relation.labels)),
        kept_true => relation.kept_true.map(|count| share(count, relation.kept)),
    }
}

fn relations(data: &ReportData) -> usize {
    data.breakdown.as_ref().map_or(0, |breakdown| breakdown.relations.len())
}

/// The few numbers at the top: (label, value, what it means).
fn tiles(data: &ReportData) -> Vec<(String, String, String)> {
    let mut tiles = Vec::new();
    for split in ["dev", "test"] {
        let rows = data.scores.iter().filter(|row| row.split == split);
        if let Some(best) = rows.max_by(|a, b| a.f1.total_cmp(&b.f1)) {
            tiles.push((format!("best {split} F1"), percent(Some(best.f1)), best.variant.clone()));
        }
    }
    let deepest = data.ranker.iter().max_by(|a, b| a.labels.share.total_cmp(&b.labels.share));
    let usual = data.ranker.iter().find(|at| at.keep == KeptPairs::times(2));
    if let Some(at) = usual.filter(|at| at.false_labels.is_some()).or(deepest) {
        let keep = format!("top {} pairs a document", at.k());
        tiles.push(("labels kept".to_owned(), percent(Some(at.labels.share)) + " %", keep.clone()));
        if let Some(wrong) = at.false_labels {
            let removed = percent(Some(1.0 - wrong.share)) + " %";
            tiles.push(("false labels removed".to_owned(), removed, keep));
        }
    }
    if !data.times.is_empty() {
        let total = data.times.iter().map(|time| time.seconds).sum();
        let stages = match data.times.len() {
            1 => "1 stage".to_owned(),
            count => format!("{count} stages"),
        };
        tiles.push(("time".to_owned(), duration(total), stages));
    }
    tiles
}

/// All drawings by name, marked as safe: `chart` escapes every text it draws.
fn charts(data: &ReportData) -> Value {
    let safe =
        |svg: String| if svg.is_empty() { Value::from(()) } else { Value::from_safe_string(svg) };
    let scores = Scores {
        split: "dev".to_owned(),
        curve: data.curve.clone(),
        reliability: data.reliability.clone(),
        calibrated: data.calibrated.clone(),
        breakdown: data.breakdown.clone().unwrap_or_default(),
        confusion: data.confusion.clone(),
        ..Scores::default()
    };
    let (curve, groups): (Vec<_>, Vec<_>) =
        plots(&scores, &[]).into_iter().partition(|plot| plot.name == "precision-recall");
    let loss = |(stage, svg)| context! { stage, svg => Value::from_safe_string(svg) };
    let losses: Vec<_> = stages(data).into_iter().map(loss).collect();
    let epochs = Axes {
        title: "dev F1 by epoch",
        x: "epoch",
        y: "dev F1 (%)",
        percent: true,
        dots: true,
        ..Axes::default()
    };
    context! {
        losses,
        learning => safe(lines(&epochs, &data.learning)),
        ranker => safe(recall_bars(&data.ranker, "labels")),
        gold => safe(recall_bars(&data.ranker_gold, "facts")),
        noise => safe(noise_shares(data)),
        curve => safe(curve.into_iter().map(|plot| plot.svg).collect()),
        groups => shown(groups),
    }
}

/// The total of each stage and, where it has several tasks, a second drawing of them: their sum
/// would press them flat.
fn stages(data: &ReportData) -> Vec<(String, String)> {
    let mut names: Vec<&str> = Vec::new();
    for curve in &data.losses {
        if !names.contains(&curve.stage.as_str()) {
            names.push(&curve.stage);
        }
    }
    let draw = |stage: &str, tasks: bool| {
        let curves = data
            .losses
            .iter()
            .filter(|curve| curve.stage == stage && curve.task.is_empty() != tasks);
        let series: Vec<_> = curves
            .map(|curve| Series { name: curve.task.clone(), points: curve.points.clone() })
            .collect();
        if tasks && series.len() == 1 {
            return (String::new(), String::new());
        }
        let title = format!("{stage}, {}", if tasks { "by task" } else { "total" });
        let svg = lines(&Axes { title: &title, x: "step", y: "loss", ..Axes::default() }, &series);
        (title, svg)
    };
    let both = names.iter().flat_map(|stage| [draw(stage, false), draw(stage, true)]);
    both.filter(|(_, svg)| !svg.is_empty()).collect()
}

/// Bars of what the ranker keeps, for each number of kept pairs.
fn kept_bars(
    ranker: &[RecallAt],
    title: &str,
    names: &[&str],
    values: &[Vec<Option<f64>>],
) -> String {
    let axes = Axes {
        title,
        x: "kept pairs a document (N: entities)",
        y: "kept (%)",
        y_range: Some((0.0, 1.05)),
        percent: true,
        ..Axes::default()
    };
    let keeps: Vec<_> = ranker.iter().map(RecallAt::k).collect();
    bars(&axes, &keeps, names, values)
}

/// Which share of `what` is on kept pairs.
fn recall_bars(ranker: &[RecallAt], what: &str) -> String {
    let kept = ranker.iter().map(|at| Some(at.labels.share)).collect();
    let title = format!("{what} on kept pairs by k");
    kept_bars(ranker, &title, &[&format!("{what} kept")], &[kept])
}

fn noise_shares(data: &ReportData) -> String {
    if data.ranker.iter().all(|at| at.true_labels.is_none()) {
        return String::new();
    }
    let right = data.ranker.iter().map(|at| at.true_labels.map(|share| share.share)).collect();
    let wrong = data.ranker.iter().map(|at| at.false_labels.map(|share| share.share)).collect();
    let title = "share of true and of false distant labels kept by k";
    kept_bars(&data.ranker, title, &["true labels", "false labels"], &[right, wrong])
}

/// A fraction in per cent with two decimals, a dash for nothing.
fn percent(value: Option<f64>) -> String {
    fixed(value.map(|value| 100.0 * value), 2)
}

fn decimal(value: Option<f64>) -> String {
    fixed(value, 3)
}

fn fixed(value: Option<f64>, decimals: usize) -> String {
    let finite = value.filter(|value| value.is_finite());
    finite.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// A time in the units that people use for it.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A rounded number with thin spaces between thousands, a dash for nothing.
fn count(value: Option<f64>) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return "–".to_owned() };
    let digits = format!("{:.0}", value.abs());
    let mut out = if value < 0.0 { "−".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
