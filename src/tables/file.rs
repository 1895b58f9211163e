//! A table file (TOML): title, base recipe, rows with overrides and published numbers, charts, and
//! the data that a user must bring. Not for: turning rows into recipes (`plan`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::column::Column;
use crate::eval::{EvidenceRecall, NamedBlock, Scores};
use crate::recipe::check_keys;
use crate::systems::Variant;
use crate::{Error, Result};

/// A table or figure of a paper.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct TableFile {
    /// Title of the table.
    pub title: String,
    /// The paper and the number of the table.
    #[serde(default)]
    pub source: String,
    /// The recipe that all rows start from, relative to this file.
    pub base: PathBuf,
    /// Keys of the recipe that all rows set.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub set: Table,
    /// Keys of the recipe that all rows set in a smoke test on a generated corpus.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub generated: Table,
    /// Seeds of each row.
    pub seeds: Vec<u64>,
    /// Scores, such as `dev.f1`, `dev.ign_f1`, `test.precision`.
    pub columns: Vec<String>,
    /// Remarks for the reader.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The rows.
    #[serde(default)]
    pub rows: Vec<RowSpec>,
    /// The charts.
    #[serde(default)]
    pub charts: Vec<TableChart>,
    /// Files that a user must bring.
    #[serde(default)]
    pub needs: Vec<NeededFile>,
}

/// A row: it is run if it names a variant, and otherwise only printed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RowSpec {
    /// Name, as printed in the paper.
    pub name: String,
    /// The variant that is run.
    pub variant: Option<Variant>,
    /// Another base recipe than the file's, relative to the file.
    pub base: Option<PathBuf>,
    /// Keys of the recipe that this row sets.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    pub set: Table,
    /// Published numbers in per cent, one a column: `57.42`, `60.75±0.12`, or `–` for none.
    #[serde(default)]
    pub published: String,
    /// `not yet: REASON` for a row that cannot be run yet.
    pub status: Option<String>,
    /// A remark.
    #[serde(default)]
    pub note: String,
}

/// What a chart shows over its horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChartKind {
    /// Recall by the number of evidence sentences.
    RecallByEvidence,
    /// F1 by the smallest distance in sentences.
    F1ByDistance,
    /// F1 by the mean number of mentions.
    F1ByMentions,
}

/// A chart of several rows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct TableChart {
    /// Title.
    pub title: String,
    /// What it shows: `recall-by-evidence`, `f1-by-distance` or `f1-by-mentions`.
    pub kind: ChartKind,
    /// The split: `dev` or `test`.
    pub split: String,
    /// Names of the rows that are its series.
    pub rows: Vec<String>,
}

/// A file that a user must bring.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct NeededFile {
    /// Its path, as the recipes name it.
    pub file: PathBuf,
    /// Its size, such as `3,053 documents`.
    pub size: String,
    /// Where it comes from.
    pub from: String,
}

/// A published number in per cent, with its deviation where the paper has one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PublishedNumber {
    /// The number.
    pub value: f64,
    /// Its standard deviation.
    pub deviation: Option<f64>,
    /// Digits behind the point, as the paper prints them.
    #[serde(skip)]
    pub digits: usize,
}

impl TableFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Recipe`] that names the file, the row and the key.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs_err::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Error::recipe(format!("there is no table at {}", path.display()))
                    .with_hint("the tables of the papers are in jobs/tables")
            }
            std::io::ErrorKind::InvalidData => {
                Error::recipe(format!("{} is not valid UTF-8", path.display()))
            }
            _ => Error::from(error),
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// As [`Self::load`], from text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let wrong = |error: toml::de::Error| {
            Error::recipe(format!("{origin}: {}", error.to_string().trim_end()))
        };
        let table: Table = toml::from_str(text).map_err(wrong)?;
        check_all_keys(&table, origin)?;
        let file: Self = toml::from_str(text).map_err(wrong)?;
        file.check().map_err(|error| error.in_place(origin))?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        if self.seeds.is_empty() {
            return Err(Error::recipe("seeds is empty").with_hint("name at least one: seeds = [1]"));
        }
        if has_twice(&self.seeds) {
            return Err(Error::recipe("seeds holds a number twice"));
        }
        if self.rows.is_empty() {
            return Err(Error::recipe("the table has no rows").with_hint("begin one with [[rows]]"));
        }
        self.columns()?;
        for row in &self.rows {
            row.check(self.columns.len())
                .map_err(|error| error.in_place(&format!("row `{}`", row.name)))?;
        }
        let folders: Vec<String> = self.rows.iter().map(RowSpec::folder).collect();
        if let Some(row) = self
            .rows
            .iter()
            .find(|row| folders.iter().filter(|folder| **folder == row.folder()).count() > 1)
        {
            let message = format!("two rows have the name `{}` or one like it", row.name);
            return Err(Error::recipe(message)
                .with_hint("names must differ in letters or digits: they become folders"));
        }
        for chart in &self.charts {
            self.check_chart(chart)
                .map_err(|error| error.in_place(&format!("chart `{}`", chart.title)))?;
        }
        Ok(())
    }

    fn check_chart(&self, chart: &TableChart) -> Result<()> {
        if !["dev", "test"].contains(&chart.split.as_str()) {
            return Err(Error::recipe(format!("split = \"{}\"", chart.split))
                .with_hint("\"dev\" or \"test\""));
        }
        match chart.rows.iter().find(|name| self.rows.iter().all(|row| row.name != **name)) {
            Some(name) => Err(Error::recipe(format!("there is no row `{name}`"))),
            None => Ok(()),
        }
    }

    /// The columns.
    ///
    /// # Errors
    /// An unknown one.
    pub fn columns(&self) -> Result<Vec<Column>> {
        if self.columns.is_empty() {
            return Err(
                Error::recipe("columns is empty").with_hint("such as columns = [\"dev.f1\"]")
            );
        }
        self.columns.iter().map(|key| Column::parse(key)).collect()
    }
}

fn has_twice(seeds: &[u64]) -> bool {
    let mut seen = HashSet::new();
    seeds.iter().any(|seed| !seen.insert(seed))
}

/// Refuses keys that no part of a table file has, wherever they stand.
fn check_all_keys(table: &Table, origin: &str) -> Result<()> {
    check_keys(table, &schemars::schema_for!(TableFile).to_value(), "", origin)
}

impl RowSpec {
    fn check(&self, columns: usize) -> Result<()> {
        if self.folder().is_empty() {
            return Err(Error::recipe("the name has no letter or digit"));
        }
        if self.name.contains(',') {
            return Err(Error::recipe("the name holds a comma, which separates names in --rows"));
        }
        self.numbers(columns)?;
        match &self.status {
            Some(status) if !status.starts_with("not yet: ") => {
                Err(Error::recipe(format!("status = \"{status}\""))
                    .with_hint("\"not yet: REASON\""))
            }
            None if self.variant.is_none() && !(self.set.is_empty() && self.base.is_none()) => {
                Err(Error::recipe("it sets keys of the recipe, but names no variant").with_hint(
                    "variant = \"baseline\", \"denoised\" or \"pretrained\" says what is run; a \
                     row without one is only printed",
                ))
            }
            _ => Ok(()),
        }
    }

    /// The variant that is run, if the row can be run.
    pub fn runs(&self) -> Option<Variant> {
        self.variant.filter(|_| self.status.is_none())
    }

    /// The name as that of a folder.
    pub fn folder(&self) -> String {
        let safe = |c: char| if c.is_alphanumeric() || "+.=".contains(c) { c } else { '-' };
        let name: String = self.name.chars().map(safe).collect();
        let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
        parts.join("-").trim_matches('.').to_owned()
    }

    /// The published numbers, one for each column; all missing where the row names none.
    ///
    /// # Errors
    /// What is no number; another count than that of the columns.
    pub fn numbers(&self, columns: usize) -> Result<Vec<Option<PublishedNumber>>> {
        if self.published.trim().is_empty() {
            return Ok(vec![None; columns]);
        }
        let numbers: Vec<_> =
            self.published.split_whitespace().map(PublishedNumber::parse).collect::<Result<_>>()?;
        if numbers.len() != columns {
            let message = format!("published has {} numbers for {columns} columns", numbers.len());
            return Err(Error::recipe(message).with_hint("put – where the paper has none"));
        }
        Ok(numbers)
    }
}

impl PublishedNumber {
    fn parse(text: &str) -> Result<Option<Self>> {
        if ["–", "-", "—"].contains(&text) {
            return Ok(None);
        }
        let number = |part: &str| part.parse::<f64>().ok().filter(|value| value.is_finite());
        let (value, deviation) = match text.split_once('±') {
            Some((value, deviation)) => (value, Some(deviation)),
            None => (text, None),
        };
        let digits = value.split_once('.').map_or(0, |(_, digits)| digits.len());
        let deviation = deviation.map(|deviation| number(deviation).ok_or(()));
        match (number(value), deviation.transpose()) {
            (Some(value), Ok(deviation)) => Ok(Some(Self { value, deviation, digits })),
            _ => Err(Error::recipe(format!("published holds `{text}`"))
                .with_hint("numbers such as 57.42 or 60.75±0.12, and – for none")),
        }
    }
}

impl std::fmt::Display for PublishedNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { value, deviation, digits } = self;
        write!(f, "{value:.digits$}")?;
        deviation.map_or(Ok(()), |deviation| write!(f, " ± {deviation:.digits$}"))
    }
}

impl ChartKind {
    /// Name of the horizontal axis, and that of the vertical one.
    pub fn axes(self) -> (&'static str, &'static str) {
        match self {
            Self::RecallByEvidence => ("evidence sentences of the fact", "recall (%)"),
            Self::F1ByDistance => ("distance in sentences", "F1 (%)"),
            Self::F1ByMentions => ("mentions of head and tail, mean", "F1 (%)"),
        }
    }

    /// The points of a set of scores: group and value, none for a group without gold facts.
    pub fn points(self, scores: &Scores) -> Vec<(String, Option<f64>)> {
        let groups = &scores.breakdown;
        let named = match self {
            Self::RecallByEvidence => {
                let recall = |group: &EvidenceRecall| (group.evidence.clone(), group.recall);
                return groups.evidence.iter().map(recall).collect();
            }
            Self::F1ByDistance => &groups.distance,
            Self::F1ByMentions => &groups.mentions,
        };
        let f1 = |group: &NamedBlock| {
            (group.name.clone(), (group.block.gold > 0).then_some(group.block.f1))
        };
        named.iter().map(f1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
title = "Small"
base = "base.toml"
seeds = [1, 2]
columns = ["dev.f1", "dev.ign_f1"]
[[rows]]
name = "BERT + D"
variant = "denoised"
set = { dsdocre.tasks = ["RelDet"] }
published = "60.75±0.12 –"
[[rows]]
name = "theirs"
published = "1.5 2"
"#;

    #[test]
    fn rows_have_published_numbers_in_the_order_of_the_columns() {
        let file = TableFile::parse(FILE, "t.toml").unwrap();
        let first = Some(PublishedNumber { value: 60.75, deviation: Some(0.12), digits: 2 });
        assert_eq!(file.rows[0].numbers(2).unwrap(), [first, None]);
        assert_eq!(file.rows[0].folder(), "BERT-+-D");
        assert_eq!(file.rows[0].runs(), Some(Variant::Denoised));
        assert_eq!(file.rows[1].runs(), None);
        assert_eq!(first.map(|number| number.to_string()).as_deref(), Some("60.75 ± 0.12"));
        let round = PublishedNumber { value: 57.0, deviation: None, digits: 2 };
        assert_eq!(round.to_string(), "57.00");
    }

    #[test]
    fn what_cannot_be_meant_is_one_error_that_names_the_place() {
        for (from, to, parts) in [
            ("seeds =", "seed =", ["t.toml: unknown key `seed`", "did you mean `seeds`?"]),
            ("published = \"1", "publish = \"1", ["`theirs`: unknown key `publish`", "published"]),
            ("1.5 2", "1.5", ["row `theirs`: published has 1 numbers for 2 columns", "–"]),
            ("1.5 2", "1.5 x", ["row `theirs`: published holds `x`", "57.42"]),
            ("dev.ign_f1", "dev.ign", ["unknown column `dev.ign`", "dev.ign_f1"]),
            ("variant = \"denoised\"", "", ["row `BERT + D`: it sets keys", "variant"]),
            ("[1, 2]", "[1, 1]", ["t.toml: seeds holds a number twice", ""]),
            ("[1, 2]", "[]", ["t.toml: seeds is empty", "at least one"]),
            ("\"theirs\"", "\"BERT (+ D)\"", ["two rows have the name", "folders"]),
            ("\"denoised\"", "\"best\"", ["unknown variant `best`", ""]),
            ("\"theirs\"", "\"A, B\"", ["row `A, B`: the name holds a comma", ""]),
        ] {
            let error = TableFile::parse(&FILE.replace(from, to), "t.toml").unwrap_err();
            assert_eq!(error.exit_code(), 64, "{error}");
            assert!(error.to_string().contains(parts[0]), "{error}");
            assert!(error.hint().unwrap_or_default().contains(parts[1]), "{error}: {to}");
        }
    }

    #[test]
    fn a_status_gives_a_reason() {
        let status = |text: &str| {
            let row = format!("name = \"theirs\"\nstatus = \"{text}\"");
            TableFile::parse(&FILE.replace("name = \"theirs\"", &row), "t.toml")
        };
        assert_eq!(status("not yet: no such encoder").unwrap().rows[1].runs(), None);
        assert!(status("later").unwrap_err().to_string().contains("row `theirs`"));
    }
}
