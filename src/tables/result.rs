//! A table with measured and published numbers side by side, as text, CSV, LaTeX, JSON and a page.
//! Not for: measuring.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::column::Column;
use super::file::{PublishedNumber, TableChart};
use super::plan::Plan;
use crate::Result;
use crate::base::{to_pretty_json, write_whole};
use crate::eval::{MeanSd, Scores, mean_sd};
use crate::report::{TablePage, TablePageChart, TablePageRow};

/// The scores of one run by split.
pub type ScoresBySplit = BTreeMap<String, Scores>;

/// What is printed where there is no number.
const NONE: &str = "–";

/// A table.
#[derive(Clone, Debug, Serialize)]
pub struct TableResult {
    /// Title.
    pub title: String,
    /// The paper.
    pub source: String,
    /// Keys of the columns.
    pub columns: Vec<String>,
    /// Their headings.
    pub headings: Vec<String>,
    /// The rows.
    pub rows: Vec<ResultRow>,
    /// The charts.
    pub charts: Vec<ResultChart>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// A row.
#[derive(Clone, Debug, Serialize)]
pub struct ResultRow {
    /// Name.
    pub name: String,
    /// What a reader should know: that it is published only, or cannot be run yet.
    pub note: String,
    /// Runs that are finished.
    pub finished: usize,
    /// Runs that were asked for.
    pub runs: usize,
    /// One for each column.
    pub cells: Vec<ResultCell>,
}

/// A number that was measured, beside the published one.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ResultCell {
    /// Over seeds, a fraction.
    pub measured: Option<MeanSd>,
    /// In per cent.
    pub published: Option<PublishedNumber>,
}

/// A chart: for each series, a value in each group.
#[derive(Clone, Debug, Serialize)]
pub struct ResultChart {
    /// Title.
    pub title: String,
    /// Names of the axes.
    pub axes: (&'static str, &'static str),
    /// Groups on the horizontal axis.
    pub groups: Vec<String>,
    /// Name and values (means over seeds) of each series.
    pub series: Vec<(String, Vec<Option<f64>>)>,
}

impl TableResult {
    /// Makes the table of a plan; `scores` are those of the finished runs by row.
    ///
    /// # Errors
    /// Never for a file that was checked.
    pub fn new(plan: &Plan, scores: &BTreeMap<usize, Vec<ScoresBySplit>>) -> Result<Self> {
        let file = &plan.file;
        let columns = file.columns()?;
        let of_row = |row: usize| scores.get(&row).map_or(&[][..], Vec::as_slice);
        let mut rows = Vec::new();
        for (place, row) in file.rows.iter().enumerate() {
            let numbers = row.numbers(columns.len())?;
            let cell = |(column, published): (&Column, Option<PublishedNumber>)| ResultCell {
                measured: measured(column, of_row(place)),
                published,
            };
            let note = match (&row.status, row.variant) {
                (Some(status), _) => status.clone(),
                (None, None) => "published only".to_owned(),
                _ => String::new(),
            };
            let notes = [note, row.note.clone()];
            let notes: Vec<String> = notes.into_iter().filter(|note| !note.is_empty()).collect();
            rows.push(ResultRow {
                name: row.name.clone(),
                note: notes.join("; "),
                finished: of_row(place).len(),
                runs: plan.all().filter(|task| task.row == place).count(),
                cells: columns.iter().zip(numbers).map(cell).collect(),
            });
        }
        let row_of = |name: &str| file.rows.iter().position(|row| row.name == name);
        let draw = |chart: &TableChart| {
            let rows = chart.rows.iter().filter_map(|name| Some((name, row_of(name)?)));
            chart_of(chart, rows.map(|(name, row)| (name.as_str(), of_row(row))))
        };
        Ok(Self {
            title: file.title.clone(),
            source: file.source.clone(),
            columns: columns.iter().map(|column| column.key.clone()).collect(),
            headings: columns.iter().map(|column| column.heading.clone()).collect(),
            rows,
            charts: file.charts.iter().map(draw).collect(),
            notes: file.notes.iter().chain(&plan.remarks).cloned().collect(),
        })
    }

    /// Writes `table.html`, `table.csv`, `table.tex` and `table.json` into a folder.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs_err::create_dir_all(folder)?;
        write_whole(&folder.join("table.csv"), self.to_csv().as_bytes())?;
        write_whole(&folder.join("table.tex"), self.to_latex().as_bytes())?;
        write_whole(&folder.join("table.json"), &to_pretty_json(self)?)?;
        self.page().write(&folder.join("table.html"))
    }

    /// One line for each row and column; measured numbers are fractions, published ones per cent.
    fn to_csv(&self) -> String {
        let mut out = "row,column,seeds,mean,deviation,published,published_deviation\n".to_owned();
        for row in &self.rows {
            for (column, cell) in self.columns.iter().zip(&row.cells) {
                let (mean, sd, n) = cell.measured.map_or_else(Default::default, |m| {
                    let deviation = if m.n > 1 { m.sd.to_string() } else { String::new() };
                    (m.mean.to_string(), deviation, m.n)
                });
                let value = cell.published.map_or_else(String::new, |p| p.value.to_string());
                let deviation = cell.published.and_then(|p| p.deviation);
                let deviation = deviation.map_or_else(String::new, |sd| sd.to_string());
                let name = row.name.replace('"', "\"\"");
                out += &format!("\"{name}\",{column},{n},{mean},{sd},{value},{deviation}\n");
            }
        }
        out
    }

    /// A `tabular` with the rules of booktabs: measured and published numbers of each column.
    fn to_latex(&self) -> String {
        let count = self.columns.len();
        let heads: String = self
            .headings
            .iter()
            .map(|h| format!(" & \\multicolumn{{2}}{{c}}{{{}}}", tex(h)))
            .collect();
        let mut out = format!(
            "% {}; {}. In per cent: measured, published. Needs \\usepackage{{booktabs}}.\n\
             \\begin{{tabular}}{{l{}}}\n\\toprule\n{heads} \\\\\n{} \\\\\n\\midrule\n",
            self.title,
            self.source,
            "rr".repeat(count),
            " & measured & published".repeat(count),
        );
        for row in &self.rows {
            let cells: String = row
                .cells
                .iter()
                .map(|cell| {
                    let (measured, published) = cell.told();
                    format!(" & {} & {}", tex(&measured), tex(&published))
                })
                .collect();
            out += &format!("{}{cells} \\\\\n", tex(&row.name));
        }
        out + "\\bottomrule\n\\end{tabular}\n"
    }

    fn page(&self) -> TablePage {
        let row = |row: &ResultRow| TablePageRow {
            name: row.name.clone(),
            note: row.note.clone(),
            runs: row.progress(),
            cells: row.cells.iter().map(ResultCell::told).collect(),
        };
        let chart = |chart: &ResultChart| TablePageChart {
            title: chart.title.clone(),
            axes: chart.axes,
            groups: chart.groups.clone(),
            series: chart.series.clone(),
        };
        TablePage {
            title: self.title.clone(),
            source: self.source.clone(),
            headings: self.headings.clone(),
            rows: self.rows.iter().map(row).collect(),
            charts: self.charts.iter().map(chart).collect(),
            notes: self.notes.clone(),
        }
    }
}

impl ResultRow {
    /// How many of the runs are finished; empty for a row without runs.
    fn progress(&self) -> String {
        if self.runs == 0 { String::new() } else { format!("{} of {}", self.finished, self.runs) }
    }
}

impl ResultCell {
    /// Measured and published, in per cent.
    fn told(&self) -> (String, String) {
        let measured = self.measured.map_or_else(|| NONE.to_owned(), |value| value.to_string());
        let published = self.published.map_or_else(|| NONE.to_owned(), |value| value.to_string());
        (measured, published)
    }
}

/// Mean and deviation of a column over runs; nothing unless every run has the score.
fn measured(column: &Column, runs: &[ScoresBySplit]) -> Option<MeanSd> {
    let value = |scores: &ScoresBySplit| (column.value)(scores.get(column.split)?);
    mean_sd(&runs.iter().map(value).collect::<Option<Vec<f64>>>()?)
}

fn chart_of<'a>(
    chart: &TableChart,
    rows: impl Iterator<Item = (&'a str, &'a [ScoresBySplit])>,
) -> ResultChart {
    let mut groups: Vec<String> = Vec::new();
    let mut series = Vec::new();
    for (name, runs) in rows {
        let mut values = BTreeMap::<String, Vec<f64>>::new();
        for scores in runs.iter().filter_map(|run| run.get(&chart.split)) {
            for (group, value) in chart.kind.points(scores) {
                if !groups.contains(&group) {
                    groups.push(group.clone());
                }
                values.entry(group).or_default().extend(value);
            }
        }
        series.push((name.to_owned(), values));
    }
    let mean = |values: Option<&Vec<f64>>| mean_sd(values?).map(|mean| mean.mean);
    let series = series.into_iter().map(|(name, values)| {
        let row = groups.iter().map(|group| mean(values.get(group))).collect();
        (name, row)
    });
    let series = series.collect();
    ResultChart { title: chart.title.clone(), axes: chart.kind.axes(), groups, series }
}

/// Text for LaTeX.
fn tex(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '±' => out += "$\\pm$",
            '–' => out += "--",
            c => out.push(c),
        }
    }
    out
}

impl fmt::Display for TableResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(f, "measured (published), in per cent; mean ± sample standard deviation")?;
        let cell = |cell: &ResultCell| {
            let (measured, published) = cell.told();
            if cell.published.is_some() { format!("{measured} ({published})") } else { measured }
        };
        let mut lines =
            vec![[&["".to_owned(), "seeds".to_owned()], self.headings.as_slice()].concat()];
        for row in &self.rows {
            let head = [row.name.clone(), row.progress()];
            lines.push(head.into_iter().chain(row.cells.iter().map(cell)).collect());
        }
        let width = |place: usize| {
            lines.iter().map(|line| line[place].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        for line in &lines {
            let name = format!("{:<1$}", line[0], widths[0]);
            let rest = line.iter().zip(&widths).skip(1);
            let rest: String = rest.map(|(text, &width)| format!("  {text:>width$}")).collect();
            writeln!(f, "{}", format!("{name}{rest}").trim_end())?;
        }
        for row in self.rows.iter().filter(|row| !row.note.is_empty()) {
            writeln!(f, "{}: {}", row.name, row.note)?;
        }
        for (number, note) in self.notes.iter().enumerate() {
            write!(f, "{}{note}", if number == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{EvidenceRecall, IgnScores};
    use crate::tables::file::TableFile;

    const FILE: &str = r#"
title = "Small_one"
base = "base.toml"
seeds = [1, 2, 3]
columns = ["dev.f1", "dev.ign_f1"]
[[rows]]
name = "ours"
variant = "baseline"
published = "60.75±0.12 –"
[[rows]]
name = "A & B"
published = "57.00 1.5"
[[rows]]
name = "later"
status = "not yet: no such encoder"
[[charts]]
title = "Recall"
kind = "recall-by-evidence"
split = "dev"
rows = ["ours"]
"#;

    fn scores(f1: f64, ign: Option<f64>, recall: f64) -> ScoresBySplit {
        let mut scores = Scores::default();
        scores.official.f1 = f1;
        scores.official.ign_annotated = ign.map(|f1| IgnScores { precision: 0.0, f1 });
        let group = |evidence: &str, recall| EvidenceRecall {
            evidence: evidence.into(),
            recall,
            ..EvidenceRecall::default()
        };
        scores.breakdown.evidence = vec![group("1", Some(recall)), group("2", None)];
        ScoresBySplit::from([("dev".to_owned(), scores)])
    }

    fn table(runs: Vec<ScoresBySplit>) -> TableResult {
        let plan = Plan {
            file: TableFile::parse(FILE, "t.toml").unwrap(),
            root: "R".into(),
            tasks: Vec::new(),
            others: Vec::new(),
            remarks: vec!["a remark".into()],
        };
        TableResult::new(&plan, &BTreeMap::from([(0, runs)])).unwrap()
    }

    #[test]
    fn a_cell_is_the_mean_and_the_sample_deviation_over_seeds() {
        // Mean 0.4; squares 0.01, 0 and 0.01, divided by two.
        let result = table(vec![
            scores(0.3, Some(0.2), 0.25),
            scores(0.4, Some(0.2), 0.75),
            scores(0.5, None, 0.5),
        ]);
        let cell = &result.rows[0].cells[0];
        let measured = cell.measured.unwrap();
        assert!((measured.mean - 0.4).abs() < 1e-12 && (measured.sd - 0.1).abs() < 1e-12);
        assert_eq!(cell.told(), ("40.00 ± 10.00".into(), "60.75 ± 0.12".into()));
        // A score that one run lacks is no mean over the others.
        assert_eq!(result.rows[0].cells[1].measured, None);
        let chart = &result.charts[0];
        assert_eq!(chart.groups, ["1", "2"]);
        assert_eq!(chart.series, [("ours".to_owned(), vec![Some(0.5), None])]);
    }

    #[test]
    fn what_is_missing_is_a_dash_and_published_numbers_keep_their_digits() {
        let result = table(Vec::new());
        let text = result.to_string();
        assert!(text.contains("– (60.75 ± 0.12)") && text.contains("– (57.00)"), "{text}");
        assert!(text.contains("later: not yet: no such encoder"), "{text}");
        assert!(text.contains("A & B: published only") && text.contains("a remark"), "{text}");
        let csv = result.to_csv();
        assert!(csv.contains("\"ours\",dev.f1,0,,,60.75,0.12\n"), "{csv}");
        assert!(csv.contains("\"later\",dev.ign_f1,0,,,,\n"), "{csv}");
        let latex = result.to_latex();
        assert!(latex.contains("ours & -- & 60.75 $\\pm$ 0.12 & -- & -- \\\\\n"), "{latex}");
        assert!(latex.contains("A \\& B & -- & 57.00") && latex.contains("\\midrule"), "{latex}");
    }

    #[test]
    fn all_forms_are_written() {
        let folder = tempfile::tempdir().unwrap();
        table(vec![scores(0.5, Some(0.25), 0.5)]).write(folder.path()).unwrap();
        let read = |name: &str| fs_err::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("table.html").contains("60.75 ± 0.12") && read("table.html").contains("<svg"));
        assert!(read("table.csv").contains("\"ours\",dev.f1,1,0.5,,60.75,0.12"));
        assert!(read("table.tex").contains("ours & 50.00 & 60.75 $\\pm$ 0.12 & 25.00 & --"));
        let json: serde_json::Value = serde_json::from_str(&read("table.json")).unwrap();
        assert_eq!(json["rows"][0]["cells"][0]["measured"]["mean"], 0.5);
        assert_eq!(json["rows"][1]["cells"][1]["published"]["value"], 1.5);
    }
}
