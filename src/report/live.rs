//! The page of a run that goes on: a shell with a small script, and the charts that the script puts
//! into it. Not for: serving it, or reading the run (`questions::watch`).

use minijinja::context;
use serde::Serialize;

use super::Series;
use super::chart::{Axes, lines};
use super::html::page;
use crate::Result;

/// Numbers of a stage over its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageCurves {
    /// The stage.
    pub stage: String,
    /// Points (step, value) under the name that the number has in the metrics, in the order in
    /// which the names came up.
    pub curves: Vec<Series>,
}

/// A chart with what a page says about it.
#[derive(Clone, Debug, Serialize)]
pub struct LiveChart {
    /// Title.
    pub title: String,
    /// What it shows.
    pub why: &'static str,
    /// The drawing, with all texts escaped.
    pub svg: String,
}

/// A chart of some curves of one stage.
struct Chart {
    title: &'static str,
    why: &'static str,
    y: &'static str,
    /// What the names of its curves begin with; what follows is the name in the legend.
    prefix: &'static str,
    /// What values are multiplied with.
    scale: f64,
    percent: bool,
    /// Whether the axis begins at 0 in any case.
    from_zero: bool,
}

/// The charts of the stage that is at work.
const CHARTS: [Chart; 5] = [
    Chart {
        title: "losses",
        why: "Each task, over the valid rows of the global batch.",
        y: "loss",
        prefix: "loss/",
        scale: 1.0,
        percent: false,
        from_zero: false,
    },
    Chart {
        title: "throughput",
        why: "Documents a second, over all ranks.",
        y: "documents/s",
        prefix: "documents_per_s",
        scale: 1.0,
        percent: false,
        from_zero: true,
    },
    Chart {
        title: "memory",
        why: "Of rank 0: its process on the host, and libtorch's allocator on its device.",
        y: "GB",
        prefix: "memory/",
        scale: 1e-9,
        percent: false,
        from_zero: true,
    },
    Chart {
        title: "time by section",
        why: "Shares of a step, on rank 0. What is missing from 100 % is bookkeeping.",
        y: "share (%)",
        prefix: "share/",
        scale: 1.0,
        percent: true,
        from_zero: true,
    },
    Chart {
        title: "utilisation",
        why: "Arithmetic of the encoder over the peak rate of the devices.",
        y: "MFU (%)",
        prefix: "mfu",
        scale: 1.0,
        percent: true,
        from_zero: true,
    },
];

/// The charts of a run: those of its last stage, F1 on dev, and the losses of earlier stages.
pub fn live_charts(stages: &[StageCurves]) -> Vec<LiveChart> {
    let Some((last, earlier)) = stages.split_last() else { return Vec::new() };
    let own = CHARTS.iter().map(|chart| {
        let title = format!("{}, {}", last.stage, chart.title);
        let series: Vec<Series> = last.below(chart.prefix, chart.scale).collect();
        let values = series.iter().flat_map(|curve| &curve.points).map(|point| point.1);
        let highest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let y_range = (chart.from_zero && highest > 0.0).then_some((0.0, 1.06 * highest));
        let (y, percent) = (chart.y, chart.percent);
        let axes = Axes { title: &title, y, percent, y_range, ..steps() };
        LiveChart { svg: lines(&axes, &series), why: chart.why, title }
    });
    let losses = earlier.iter().rev().map(|stage| stage.loss());
    let charts = [last.loss(), dev_f1(stages)].into_iter().chain(own).chain(losses);
    charts.filter(|chart| !chart.svg.is_empty()).collect()
}

fn steps() -> Axes<'static> {
    Axes { x: "step", ..Axes::default() }
}

fn dev_f1(stages: &[StageCurves]) -> LiveChart {
    let of = |stage: &StageCurves| {
        let points = stage.curve("dev/f1")?.to_vec();
        Some(Series { name: stage.stage.clone(), points })
    };
    let series: Vec<Series> = stages.iter().filter_map(of).collect();
    let title = "dev F1".to_owned();
    let axes = Axes { title: &title, y: "F1 (%)", percent: true, dots: true, ..steps() };
    LiveChart { svg: lines(&axes, &series), why: "By stage, each time dev is judged.", title }
}

impl StageCurves {
    /// The curve of a number.
    pub fn curve(&self, name: &str) -> Option<&[(f64, f64)]> {
        let curve = self.curves.iter().find(|curve| curve.name == name)?;
        Some(&curve.points)
    }

    /// Adds a point to the curve of a number.
    pub fn add(&mut self, name: &str, point: (f64, f64)) {
        match self.curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push(point),
            None => self.curves.push(Series { name: name.to_owned(), points: vec![point] }),
        }
    }

    fn loss(&self) -> LiveChart {
        let title = format!("{}, loss", self.stage);
        let axes = Axes { title: &title, y: "loss", ..steps() };
        let points = self.curve("loss").unwrap_or_default().to_vec();
        let svg = lines(&axes, &[Series { name: "loss".to_owned(), points }]);
        LiveChart { svg, why: "The sum over all tasks.", title }
    }

    /// The curves whose names begin so, scaled.
    fn below(&self, prefix: &str, scale: f64) -> impl Iterator<Item = Series> {
        self.curves.iter().filter_map(move |Series { name, points }| {
            let rest = name.strip_prefix(prefix)?;
            let name = if rest.is_empty() { prefix } else { rest }.replace('_', " ");
            let points = points.iter().map(|&(step, value)| (step, scale * value)).collect();
            Some(Series { name, points })
        })
    }
}

/// The page without its data, for a browser that may run the script with this `nonce` and ask only
/// the server that it has the page from.
///
/// # Errors
/// A bug error if the template does not fit.
pub fn live_page(run: &str, every_s: u64, nonce: &str) -> Result<String> {
    let policy = format!("; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:");
    let title = format!("watch {run}");
    page("live.html", context! { title, run, every_s, nonce, policy })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, curves: &[(&str, f64)]) -> StageCurves {
        let points = |value: f64| vec![(1.0, value), (2.0, value)];
        let curve = |(name, value): &(&str, f64)| Series {
            name: (*name).to_owned(),
            points: points(*value),
        };
        let curves = curves.iter().map(curve);
        StageCurves { stage: name.into(), curves: curves.collect() }
    }

    #[test]
    fn charts_are_those_that_have_data() {
        let first = stage("pretrain", &[("loss", 2.0), ("documents_per_s", 8.0)]);
        let last = [("loss", 1.0), ("loss/re", 1.0), ("dev/f1", 0.5), ("memory/host", 2e9)];
        let charts = live_charts(&[first, stage("<b>", &last)]);
        let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
        let expected = ["<b>, loss", "dev F1", "<b>, losses", "<b>, memory", "pretrain, loss"];
        assert_eq!(titles, expected);
        assert!(charts.iter().all(|chart| !chart.svg.contains("<b>")), "{charts:?}");
        assert!(live_charts(&[]).is_empty());
    }

    #[test]
    fn the_page_holds_nothing_of_others_unescaped_and_asks_nobody_else() {
        let page = live_page("runs/<script>alert(1)</script>&\"", 2, "abc").unwrap();
        assert!(!page.contains("<script>alert"), "{page}");
        assert_eq!(page.matches("<script").count(), 1);
        assert!(page.contains("<script nonce=\"abc\">") && !page.contains("https:"), "{page}");
        assert!(page.contains("connect-src &#x27;self&#x27;") && !page.contains("http:"), "{page}");
    }
}
