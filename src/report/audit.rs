//! The page of `audit`: how noisy distant labels are, and what denoisers keep of them. Not for: the
//! numbers (`eval`).

use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Value, context};

use super::Series;
use super::chart::{Axes, bars, lines};
use super::html::page;
use crate::Result;
use crate::base::write_whole;
use crate::eval::{Audit, AuditedDenoiser};

/// Relations that the chart shows.
const MOST_RELATIONS: usize = 20;

/// What the page shows.
pub struct AuditPage<'a> {
    /// The file with distant labels.
    pub labels: &'a str,
    /// The file with human labels.
    pub gold: &'a str,
    /// The numbers.
    pub audit: &'a Audit,
}

impl AuditPage<'_> {
    /// Writes the page: one file without scripts and without network.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, self.render()?.as_bytes())
    }

    fn render(&self) -> Result<String> {
        let values = context! {
            title => format!("Noise audit of {}", self.labels),
            labels => self.labels,
            gold => self.gold,
            audit => Value::from(Serde(self.audit)),
            curves => Value::from_safe_string(self.curves()),
            by_relation => Value::from_safe_string(self.by_relation()),
        };
        page("audit.html", values)
    }

    fn curves(&self) -> String {
        let axes = Axes {
            title: "true labels kept by false labels kept",
            x: "false labels kept (%)",
            y: "true labels kept (%)",
            x_range: Some((0.0, 100.0)),
            y_range: Some((0.0, 1.05)),
            percent: true,
            ..Axes::default()
        };
        let chance = Series { name: "chance".into(), points: vec![(0.0, 0.0), (100.0, 1.0)] };
        let curve = |one: &AuditedDenoiser| Series {
            name: format!("{} ({:.3})", one.name, one.area),
            points: one.curve.iter().map(|at| (100.0 * at.false_share, at.true_share)).collect(),
        };
        let all: Vec<Series> = self.audit.denoisers.iter().map(curve).chain([chance]).collect();
        if self.audit.denoisers.is_empty() { String::new() } else { lines(&axes, &all) }
    }

    fn by_relation(&self) -> String {
        let shown = &self.audit.relations[..self.audit.relations.len().min(MOST_RELATIONS)];
        let groups: Vec<String> = shown.iter().map(|one| one.relation.clone()).collect();
        let share = |part: usize, of: usize| (of > 0).then(|| part as f64 / of as f64);
        let right = shown.iter().map(|one| share(one.right, one.labels)).collect();
        let found = shown.iter().map(|one| share(one.right, one.facts)).collect();
        let axes = Axes {
            title: "right labels and found facts by relation",
            x: "relation, most distant labels first",
            y: "share (%)",
            percent: true,
            ..Axes::default()
        };
        bars(&axes, &groups, &["labels that are right", "facts that are found"], &[right, found])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{AuditedRelation, KeptPoint};

    #[test]
    fn the_page_shows_curves_and_relations_and_escapes_names() {
        let point = |true_share, false_share| KeptPoint { true_share, false_share, precision: 0.5 };
        let audit = Audit {
            labels: 10,
            right: 4,
            facts: 8,
            documents: 2,
            relations: vec![AuditedRelation {
                relation: "P17".into(),
                labels: 10,
                right: 4,
                facts: 8,
            }],
            denoisers: vec![AuditedDenoiser {
                name: "<ranker>".into(),
                area: 0.75,
                curve: vec![point(0.0, 0.0), point(0.5, 0.25), point(1.0, 1.0)],
                ..AuditedDenoiser::default()
            }],
            ..Audit::default()
        };
        let text = AuditPage { labels: "a.json", gold: "b.json", audit: &audit }.render().unwrap();
        assert!(text.contains("&lt;ranker&gt; (0.750)") && !text.contains("<ranker>"), "{text}");
        assert!(text.contains("P17") && text.contains("40.0") && text.contains("50.0"), "{text}");
        assert!(text.matches("<svg").count() == 2 && !text.contains("http:"), "{text}");
    }
}
