//! A Gantt chart: what each of several rows did when, as small inline SVG in the style of `chart`.
//! Not for: choosing what to draw.

use super::chart::{LEFT, LEGEND_ROW, RIGHT, escape, legend, opening, short, ticks};

/// Width of the drawing, twice that of a chart: time needs room.
const WIDTH: f64 = 1080.0;
/// Height of a row and of its bars, and what stands above and below all rows, in SVG units.
const ROW: f64 = 22.0;
const BAR: f64 = 16.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 40.0;
/// Height of a bar that goes on beside the others.
const ASIDE: f64 = 4.0;
/// A bar is at least this wide, so that it can be seen.
const NARROWEST: f64 = 0.4;

/// What one row did.
#[derive(Clone, Debug, Default)]
pub struct GanttRow {
    /// Its name, in a few letters.
    pub name: String,
    /// Its bars; later ones cover earlier ones.
    pub bars: Vec<GanttBar>,
}

/// A stretch of time.
#[derive(Clone, Debug, Default)]
pub struct GanttBar {
    /// Begin and end, in seconds.
    pub span: (f64, f64),
    /// Index of its kind, which decides the colour.
    pub kind: usize,
    /// Whether it goes on beside what the row does otherwise.
    pub aside: bool,
    /// What is shown when it is pointed at.
    pub title: String,
}

/// The chart of a stretch of time in seconds; an empty text without rows or without time.
pub fn gantt(title: &str, range: (f64, f64), kinds: &[&str], rows: &[GanttRow]) -> String {
    let (from, to) = range;
    if rows.is_empty() || !(to > from && from.is_finite() && to.is_finite()) {
        return String::new();
    }
    let bottom = TOP + ROW * rows.len() as f64;
    let (right, per_second) = (WIDTH - RIGHT, (WIDTH - RIGHT - LEFT) / (to - from));
    let at = |seconds: f64| LEFT + (seconds.clamp(from, to) - from) * per_second;
    let sample = |style: usize| {
        format!("<rect class=\"b s{style}\" y=\"-5\" width=\"20\" height=\"10\" rx=\"1.5\"/>")
    };
    let (legend, lines) = legend(kinds, bottom + BOTTOM + LEGEND_ROW / 2.0, sample);
    let mut out = opening(WIDTH, bottom + BOTTOM + LEGEND_ROW * lines as f64, title) + &legend;
    for tick in ticks(range, 6) {
        let (x, label) = (at(tick), short(tick));
        out += &format!(
            "<line class=\"g\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
            bottom + 15.0
        );
    }
    out += &format!(
        "<text class=\"x n\" x=\"{:.1}\" y=\"{:.1}\">seconds</text>",
        (LEFT + right) / 2.0,
        bottom + BOTTOM - 8.0
    );
    for (number, row) in rows.iter().enumerate() {
        let top = TOP + ROW * number as f64;
        out += &format!(
            "<text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 7.0,
            top + ROW / 2.0 + 4.0,
            escape(&row.name)
        );
        let seen = row.bars.iter().filter(|bar| bar.span.1 >= from && bar.span.0 <= to);
        for GanttBar { span, kind, aside, title } in seen {
            let (x, end) = (at(span.0), at(span.1));
            let (y, height) =
                if *aside { (top + ROW - ASIDE - 1.0, ASIDE) } else { (top + 1.0, BAR) };
            out += &format!(
                "<rect class=\"b s{kind}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
                 height=\"{height}\"><title>{}</title></rect>",
                (end - x).max(NARROWEST),
                escape(title)
            );
        }
    }
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_lie_where_their_times_say_and_texts_are_escaped() {
        let bar = |from, to, aside| GanttBar {
            span: (from, to),
            kind: 1,
            aside,
            title: "<script>alert(1)</script>".into(),
        };
        let bars = vec![bar(-5.0, 0.0, false), bar(-30.0, -20.0, false), bar(-1.0, 9.0, true)];
        let rows = [GanttRow { name: "rank \"0\"".into(), bars }];
        let svg = gantt("<b>", (-10.0, 0.0), &["reading", "compute"], &rows);
        assert!(!svg.contains("<script") && !svg.contains("<b>"), "{svg}");
        assert!(svg.contains("rank &quot;0&quot;") && svg.contains("&lt;script&gt;"));
        // Two of the three bars can be seen; the first takes the right half of the drawing.
        assert_eq!(svg.matches("<title>").count(), 2);
        let (middle, half) = ((LEFT + WIDTH - RIGHT) / 2.0, (WIDTH - RIGHT - LEFT) / 2.0);
        let place = format!("x=\"{middle:.1}\" y=\"9.0\" width=\"{half:.1}\"");
        assert!(svg.contains(&place), "{place} in {svg}");
        assert_eq!(gantt("t", (0.0, 0.0), &[], &rows), "");
        assert_eq!(gantt("t", (0.0, 1.0), &[], &[]), "");
    }
}
