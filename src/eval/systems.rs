//! Several systems on the same documents, one column for each: tables and CSV. Not for: whether a
//! difference is more than luck (`compare`), nor for several runs of one system (`seeds`).

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::sections::{ScoreSection, SectionRow, quoted};
use super::{Scores, to_csv};
use crate::{Error, Result};

/// A file of predictions with the name of its system, written `NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemFile {
    /// The name that tables and charts show.
    pub name: String,
    /// The predictions.
    pub path: PathBuf,
}

impl FromStr for SystemFile {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.trim().is_empty() && !path.is_empty() => {
                Ok(Self { name: name.trim().to_owned(), path: path.into() })
            }
            _ => Err("must be NAME=FILE, such as GLRE=glre/result.json".to_owned()),
        }
    }
}

/// The scores of one system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SystemScores {
    /// Its name.
    pub name: String,
    /// What it gets.
    #[serde(flatten)]
    pub scores: Scores,
}

/// Refuses two systems of one name.
///
/// # Errors
/// [`Error::Recipe`] naming it.
pub fn check_names(systems: &[SystemFile]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match systems.iter().find(|system| !seen.insert(&system.name)) {
        Some(twice) => Err(Error::recipe(format!("two systems are called `{}`", twice.name))
            .with_hint("give each --system a name of its own")),
        None => Ok(()),
    }
}

/// Names that tell files apart: the file's name, with as many folders before it as that takes.
pub fn distinct_names(files: &[&Path]) -> Vec<String> {
    let named = |path: &Path, parts: usize| {
        let all: Vec<_> = path.iter().collect();
        let last: PathBuf = all[all.len().saturating_sub(parts)..].iter().collect();
        last.display().to_string()
    };
    let longest = files.iter().map(|path| path.iter().count()).max().unwrap_or(1);
    let all = |parts: usize| files.iter().map(|path| named(path, parts)).collect::<Vec<_>>();
    let distinct = |names: &Vec<String>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    (1..=longest).map(all).find(distinct).unwrap_or_else(|| all(longest))
}

/// The row of a section and group, as one of several systems has it.
pub fn row_of<'a>(
    sections: &'a [ScoreSection],
    section: &str,
    row: &str,
) -> Option<&'a SectionRow> {
    let section = sections.iter().find(|own| own.name == section)?;
    section.rows.iter().find(|own| own.name == row)
}

/// The rows of several systems, side by side.
#[derive(Clone, Copy, Debug)]
pub struct SideBySide<'a>(pub &'a [SystemScores]);

impl SideBySide<'_> {
    /// All rows of all systems as CSV, with the system in the first column.
    pub fn to_csv(self) -> String {
        let mut out = String::new();
        for (number, system) in self.0.iter().enumerate() {
            let rows = to_csv(&system.scores.sections());
            let mut lines = rows.lines();
            let head = lines.next().unwrap_or_default();
            if number == 0 {
                out += &format!("system,{head}\n");
            }
            for line in lines {
                out += &format!("{},{line}\n", quoted(&system.name));
            }
        }
        out
    }
}

/// Narrowest column of a system.
const COLUMN: usize = 8;

impl fmt::Display for SideBySide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<Vec<ScoreSection>> =
            self.0.iter().map(|system| system.scores.sections()).collect();
        let width = |name: &str| name.chars().count().max(COLUMN - 2) + 2;
        writeln!(f, "F1 of each system, or recall where a group has no F1")?;
        write!(f, "{:<36}", "")?;
        for system in self.0 {
            write!(f, "{:>width$}", system.name, width = width(&system.name))?;
        }
        writeln!(f, "{:>10}", "gold")?;
        // A section that only some systems have, such as Ign, has rows all the same.
        let mut shown = BTreeSet::new();
        for section in all.iter().flatten().filter(|section| section.name != "relation") {
            if !shown.insert(section.name.clone()) {
                continue;
            }
            writeln!(f, "\n{}: {}", section.name, section.definition)?;
            for row in &section.rows {
                write!(f, "{:<36}", row.name)?;
                for (system, sections) in self.0.iter().zip(&all) {
                    let value = row_of(sections, &section.name, &row.name)
                        .and_then(|row| row.f1.or(row.recall));
                    let text =
                        value.map_or_else(String::new, |value| format!("{:.2}", 100.0 * value));
                    write!(f, "{text:>width$}", width = width(&system.name))?;
                }
                let gold = row.gold.map_or_else(String::new, |gold| gold.to_string());
                writeln!(f, "{gold:>10}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{EvidenceRecall, NamedBlock, ScoreBlock};

    #[test]
    fn a_system_is_a_name_and_a_file() {
        let read: SystemFile = "w/o ECA=runs/a=b/r.json".parse().unwrap();
        assert_eq!((read.name.as_str(), read.path), ("w/o ECA", "runs/a=b/r.json".into()));
        for wrong in ["r.json", "=r.json", " =r.json", "HIN="] {
            assert!(wrong.parse::<SystemFile>().unwrap_err().contains("NAME=FILE"), "{wrong}");
        }
        let twice = ["A=x", "B=y", "A=z"].map(|text| text.parse().unwrap());
        assert!(check_names(&twice).unwrap_err().to_string().contains("`A`"));
        check_names(&twice[..2]).unwrap();
    }

    #[test]
    fn files_are_named_by_as_many_folders_as_tell_them_apart() {
        let names = |files: [&str; 3]| distinct_names(&files.map(Path::new));
        assert_eq!(names(["a/x.json", "b/y.json", "z.json"]), ["x.json", "y.json", "z.json"]);
        assert_eq!(
            names(["a/p/x.json", "b/p/x.json", "x.json"]),
            ["a/p/x.json", "b/p/x.json", "x.json"]
        );
    }

    #[test]
    fn each_system_has_a_column_in_every_group() {
        let system = |name: &str, correct: usize| {
            let mut scores = Scores::default();
            let block = ScoreBlock::new(4, 4, correct);
            scores.breakdown.mentions = vec![NamedBlock { name: "[1,2)".into(), block }];
            scores.breakdown.evidence = vec![EvidenceRecall {
                evidence: "1".into(),
                gold: 4,
                found: correct,
                recall: Some(correct as f64 / 4.0),
            }];
            scores.breakdown.infer.conclusion = block;
            SystemScores { name: name.into(), scores }
        };
        let systems = [system("HIN", 1), system("GLRE, again", 2), system("X", 3)];
        let table = SideBySide(&systems).to_string();
        let cells = |row: &str| {
            let line = table.lines().find(|line| line.starts_with(row)).unwrap_or_default();
            line[row.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        for row in ["[1,2)", "1 sentences", "infer, conclusion"] {
            assert_eq!(cells(row), ["25.00", "50.00", "75.00", "4"], "{row}\n{table}");
        }
        let csv = SideBySide(&systems).to_csv();
        assert!(csv.starts_with("system,section,group,"), "{csv}");
        assert!(csv.contains("\n\"GLRE, again\",mentions,\"[1,2)\",4,4,0.5,0.5,0.5\n"), "{csv}");
    }
}
