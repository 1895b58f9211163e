//! The same scores over several prediction files, such as those of runs with different seeds: mean
//! ± standard deviation of every row. Not for: files of different documents.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::sections::{ScoreSection, SectionRow, quoted};
use super::statistics::{MeanSd, mean_sd};

/// Rows over several files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OverSeeds {
    /// Names of the files.
    pub files: Vec<String>,
    /// Every row that all files have.
    pub rows: Vec<SeedRow>,
}

/// A row over several files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeedRow {
    /// The section.
    pub section: String,
    /// The group.
    pub group: String,
    /// Precision.
    pub precision: Option<MeanSd>,
    /// Recall.
    pub recall: Option<MeanSd>,
    /// F1.
    pub f1: Option<MeanSd>,
}

/// Puts the sections of several files together; rows go by section and name, in the order of the
/// first file.
pub fn over_seeds(files: Vec<String>, sections: &[Vec<ScoreSection>]) -> OverSeeds {
    let Some((first, others)) = sections.split_first() else {
        return OverSeeds { files, ..OverSeeds::default() };
    };
    let same = |other: &[ScoreSection], section: &str, name: &str| {
        let rows = other.iter().filter(|other| other.name == section).flat_map(|other| &other.rows);
        rows.clone().find(|row| row.name == name).cloned()
    };
    let of = |(section, row): (&ScoreSection, &SectionRow)| {
        let mut rows = vec![row.clone()];
        for other in others {
            rows.push(same(other, &section.name, &row.name)?);
        }
        Some(seed_row(&section.name, &row.name, &rows))
    };
    let rows = first
        .iter()
        .flat_map(|section| section.rows.iter().map(move |row| (section, row)))
        .filter_map(of)
        .collect();
    OverSeeds { files, rows }
}

fn seed_row(section: &str, group: &str, rows: &[SectionRow]) -> SeedRow {
    let over = |of: fn(&SectionRow) -> Option<f64>| {
        mean_sd(&rows.iter().map(of).collect::<Option<Vec<_>>>()?)
    };
    SeedRow {
        section: section.to_owned(),
        group: group.to_owned(),
        precision: over(|row| row.precision),
        recall: over(|row| row.recall),
        f1: over(|row| row.f1),
    }
}

impl OverSeeds {
    /// All rows as CSV with a line of names; fractions.
    pub fn to_csv(&self) -> String {
        let mut out =
            "section,group,files,precision,precision_sd,recall,recall_sd,f1,f1_sd\n".to_owned();
        for row in &self.rows {
            let value = |value: Option<MeanSd>| {
                value.map_or_else(|| ",".to_owned(), |value| format!("{},{}", value.mean, value.sd))
            };
            let values = [row.precision, row.recall, row.f1].map(value).join(",");
            out += &format!(
                "{},{},{},{values}\n",
                quoted(&row.section),
                quoted(&row.group),
                self.files.len()
            );
        }
        out
    }
}

impl fmt::Display for OverSeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "mean ± sample standard deviation over {} files: {}",
            self.files.len(),
            self.files.join(", ")
        )?;
        writeln!(f, "{:<36}{:>16}{:>16}{:>16}", "", "P", "R", "F1")?;
        for row in self.rows.iter().filter(|row| row.section != "relation") {
            let text =
                |value: Option<MeanSd>| value.map_or_else(String::new, |value| value.to_string());
            let name = if row.group.starts_with('[') {
                format!("{} {}", row.section, row.group)
            } else {
                row.group.clone()
            };
            writeln!(
                f,
                "{name:<36}{:>16}{:>16}{:>16}",
                text(row.precision),
                text(row.recall),
                text(row.f1)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_meet_by_name() {
        let section = |rows: &[(&str, f64)]| {
            let row = |&(name, f1): &(&str, f64)| SectionRow {
                name: name.into(),
                f1: Some(f1),
                ..SectionRow::default()
            };
            vec![ScoreSection {
                name: "facts".into(),
                definition: String::new(),
                rows: rows.iter().map(row).collect(),
            }]
        };
        let over = over_seeds(
            vec!["a".into(), "b".into()],
            &[section(&[("x", 0.2), ("y", 0.5)]), section(&[("z", 0.1), ("x", 0.4)])],
        );
        assert_eq!(over.rows.len(), 1);
        let f1 = over.rows[0].f1.unwrap();
        assert!(
            (f1.mean - 0.3).abs() < 1e-12 && (f1.sd - 0.02f64.sqrt()).abs() < 1e-12 && f1.n == 2
        );
        assert_eq!(over.rows[0].recall, None);
        assert!(over.to_string().contains("30.00 ± 14.14"), "{over}");
        assert!(over.to_csv().contains("facts,x,2,,,,,0.3"), "{}", over.to_csv());
    }
}
