//! The page of a table of several runs, beside published numbers. Not for: making the table.

use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Value, context};
use serde::Serialize;

use super::chart::{Axes, bars};
use super::html::page;
use crate::Result;
use crate::base::write_whole;

/// A table as it is shown.
#[derive(Clone, Debug, Default)]
pub struct TablePage {
    /// Title.
    pub title: String,
    /// The paper.
    pub source: String,
    /// Headings of the columns.
    pub headings: Vec<String>,
    /// The rows.
    pub rows: Vec<TablePageRow>,
    /// The charts.
    pub charts: Vec<TablePageChart>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// A row of the page.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TablePageRow {
    /// Name.
    pub name: String,
    /// A remark.
    pub note: String,
    /// How many runs are finished.
    pub runs: String,
    /// Measured and published, for each column.
    pub cells: Vec<(String, String)>,
}

/// A chart of the page; values are fractions.
#[derive(Clone, Debug, Default)]
pub struct TablePageChart {
    /// Title.
    pub title: String,
    /// Names of the axes.
    pub axes: (&'static str, &'static str),
    /// Groups on the horizontal axis.
    pub groups: Vec<String>,
    /// Name and values of each series.
    pub series: Vec<(String, Vec<Option<f64>>)>,
}

impl TablePage {
    /// Writes the page: one file without scripts and without network.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, self.render()?.as_bytes())
    }

    fn render(&self) -> Result<String> {
        let charts: Vec<Value> = self.charts.iter().map(TablePageChart::shown).collect();
        let values = context! {
            title => &self.title,
            source => &self.source,
            headings => &self.headings,
            rows => Value::from(Serde(&self.rows)),
            charts,
            notes => &self.notes,
        };
        page("table.html", values)
    }
}

impl TablePageChart {
    fn shown(&self) -> Value {
        let (x, y) = self.axes;
        let axes = Axes { title: &self.title, x, y, percent: true, ..Axes::default() };
        let names: Vec<&str> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<_> = self.series.iter().map(|(_, values)| values.clone()).collect();
        let svg = Value::from_safe_string(bars(&axes, &self.groups, &names, &values));
        context! { title => &self.title, svg }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_both_numbers_of_a_cell_and_escapes_names() {
        let page = TablePage {
            title: "A & B".into(),
            headings: vec!["dev F1".into()],
            rows: vec![TablePageRow {
                name: "<ours>".into(),
                runs: "2 of 3".into(),
                cells: vec![("60.10 ± 0.20".into(), "62.74 ± 0.15".into())],
                ..TablePageRow::default()
            }],
            charts: vec![TablePageChart {
                title: "Recall".into(),
                groups: vec!["1".into()],
                series: vec![("<ours>".into(), vec![Some(0.25)])],
                ..TablePageChart::default()
            }],
            ..TablePage::default()
        };
        let text = page.render().unwrap();
        assert!(text.contains("<h1>A &amp; B</h1>") && text.contains("&lt;ours&gt;"), "{text}");
        assert!(text.contains("60.10 ± 0.20") && text.contains("62.74 ± 0.15"), "{text}");
        assert!(text.contains("2 of 3") && text.contains("25.0"), "{text}");
        assert!(!text.contains("<ours>") && !text.contains("http:"), "{text}");
    }
}
