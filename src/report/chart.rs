//! Line and bar charts as small inline SVG. Colours, fonts and dash patterns are CSS classes of the page, so that one drawing fits light
//! and dark screens and print. Not for: choosing what to draw (`html`).

use std::fmt::Write;

use super::Series;

/// Size of the drawing and of its margins in user units; the page scales it to its column.
const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// Number of distinct line and bar styles that the page defines.
const STYLES: usize = 8;
/// A line is thinned to about this many points: more cannot be seen.
const MOST_POINTS: usize = 240;

/// What stands at the axes and how values are printed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Axes<'a> {
    /// What the drawing shows, for readers that cannot see it.
    pub title: &'a str,
    /// Name of the horizontal axis.
    pub x: &'a str,
    /// Name of the vertical axis.
    pub y: &'a str,
    /// Fixed horizontal range.
    pub x_range: Option<(f64, f64)>,
    /// Fixed vertical range.
    pub y_range: Option<(f64, f64)>,
    /// Whether y holds fractions to be printed in per cent.
    pub percent: bool,
    /// Whether to mark the points of lines.
    pub dots: bool,
}

/// A chart with one line a series; nothing if no series has a finite point.
pub(crate) fn lines(axes: &Axes<'_>, series: &[Series]) -> String {
    let drawn: Vec<Series> = series.iter().map(thin).collect();
    let points = || drawn.iter().flat_map(|series| &series.points);
    let (Some(xs), Some(ys)) = (range(points().map(|point| point.0)), range(points().map(|point| point.1))) else {
        return String::new();
    };
    let frame = Frame::new(axes, axes.x_range.unwrap_or(xs), axes.y_range.unwrap_or_else(|| padded(ys)));
    let mut out = frame.open(axes);
    for tick in ticks(frame.x, 6) {
        frame.x_label(&mut out, frame.at_x(tick), &short(tick));
    }
    for (number, series) in drawn.iter().enumerate() {
        let style = number % STYLES;
        let path: Vec<String> = series.points.iter().map(|p| format!("{:.1},{:.1}", frame.at_x(p.0), frame.at_y(p.1))).collect();
        push(&mut out, format_args!("<polyline class=\"l s{style}\" points=\"{}\"/>", path.join(" ")));
        for point in series.points.iter().filter(|_| axes.dots || series.points.len() == 1) {
            let (x, y, label) = (frame.at_x(point.0), frame.at_y(point.1), axes.value(point.1));
            let title = format!("{} · {} {}: {label}", escape(&series.name), escape(axes.x), short(point.0));
            push(
                &mut out,
                format_args!("<circle class=\"d s{style}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"><title>{title}</title></circle>"),
            );
        }
    }
    out.push_str("</svg>");
    with_legend(&out, drawn.iter().map(|series| series.name.as_str()))
}

/// A chart with one bar a series in each group; `values[series][group]`, missing values leave a gap.
pub(crate) fn bars(axes: &Axes<'_>, groups: &[String], names: &[&str], values: &[Vec<Option<f64>>]) -> String {
    let Some(ys) = range(values.iter().flatten().flatten().copied()) else { return String::new() };
    let frame = Frame::new(axes, (0.0, groups.len() as f64), axes.y_range.unwrap_or((0.0, ys.1 * 1.05)));
    let mut out = frame.open(axes);
    let width = 0.74 / names.len().max(1) as f64;
    for (place, group) in groups.iter().enumerate() {
        frame.x_label(&mut out, frame.at_x(place as f64 + 0.5), group);
        for (number, series) in values.iter().enumerate() {
            let Some(value) = series.get(place).copied().flatten().filter(|value| value.is_finite()) else { continue };
            let left = frame.at_x(place as f64 + 0.13 + width * number as f64);
            let right = frame.at_x(place as f64 + 0.13 + width * (number + 1) as f64);
            let (y, label, style) = (frame.at_y(value), axes.value(value), number % STYLES);
            let (w, h) = (right - left - 1.5, frame.at_y(frame.y.0) - y);
            let title = format!("{} · {}: {label}", escape(names.get(number).copied().unwrap_or_default()), escape(group));
            push(
                &mut out,
                format_args!(
                    "<rect class=\"b s{style}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"1.5\"><title>{title}</title></rect>"
                ),
            );
            if w > 24.0 {
                push(&mut out, format_args!("<text class=\"v\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", left + w / 2.0, y - 4.0));
            }
        }
    }
    out.push_str("</svg>");
    with_legend(&out, names.iter().copied())
}

/// Side of a [`grid`]'s drawing; its margins leave room for names.
const SIDE: f64 = 540.0;
const NAMES: f64 = 74.0;

/// A square of counts, rows down and columns across under the same names; the shade is the share of the row.
pub(crate) fn grid(axes: &Axes<'_>, names: &[String], counts: &[Vec<usize>]) -> String {
    let mut out = format!("<svg viewBox=\"0 0 {SIDE} {SIDE}\" role=\"img\" aria-label=\"{}\">", escape(axes.title));
    let size = (SIDE - NAMES - RIGHT - 24.0) / names.len().max(1) as f64;
    let at = |place: usize| NAMES + 24.0 + size * place as f64;
    for (row, (name, counts)) in names.iter().zip(counts).enumerate() {
        let (middle, label, total) = (at(row) + size / 2.0, escape(name), counts.iter().sum::<usize>().max(1));
        push(&mut out, format_args!("<text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", at(0) - 7.0, middle + 4.0));
        let turn = format!("transform=\"rotate(-45 {middle:.1} {:.1})\"", at(0) - 8.0);
        push(&mut out, format_args!("<text class=\"c\" {turn} x=\"{middle:.1}\" y=\"{:.1}\">{label}</text>", at(0) - 8.0));
        for (column, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (x, y, shade) = (at(column), at(row), 0.08 + 0.6 * count as f64 / total as f64);
            let title = format!("{label} → {}: {count}", escape(names.get(column).map_or("", String::as_str)));
            push(
                &mut out,
                format_args!(
                    "<rect class=\"h\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{size:.1}\" height=\"{size:.1}\" fill-opacity=\"{shade:.2}\"><title>{title}</title></rect>"
                ),
            );
            push(&mut out, format_args!("<text class=\"v\" x=\"{:.1}\" y=\"{:.1}\">{count}</text>", x + size / 2.0, y + size / 2.0 + 4.0));
        }
    }
    let middle = (at(0) + at(names.len())) / 2.0;
    push(&mut out, format_args!("<text class=\"x n\" x=\"{middle:.1}\" y=\"14\">{}</text>", escape(axes.x)));
    let place = format!("transform=\"rotate(-90 12 {middle:.1})\" x=\"12\" y=\"{middle:.1}\"");
    push(&mut out, format_args!("<text class=\"x n\" {place}>{}</text></svg>", escape(axes.y)));
    out
}

/// What the page says about its drawings, for a file by itself: the same classes in fixed colours on white.
const STYLE: &str = "text{font:11.5px system-ui,sans-serif;fill:#5b6577}text.x,text.v{text-anchor:middle}text.y{text-anchor:end}\
    text.n{font-size:12px}text.v{fill:#1c2330;font-size:11px}.g{stroke:#e1e5eb}.a{stroke:#5b6577}.l{fill:none;stroke-width:2}\
    .s0{stroke:#0072b2}.b.s0,.d.s0{fill:#0072b2;stroke:none}.h{fill:#0072b2}";

/// A drawing without a legend as a file of its own.
pub(crate) fn standalone(svg: &str) -> String {
    let background = format!("<style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>");
    let (head, rest) = svg.split_once('>').unwrap_or((svg, ""));
    format!("{}>{background}{rest}\n", head.replacen("<svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"", 1))
}

impl Axes<'_> {
    fn value(&self, value: f64) -> String {
        if self.percent { format!("{:.1}", 100.0 * value) } else { short(value) }
    }
}

/// The mapping from values to the drawing.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    percent: bool,
}

impl Frame {
    fn new(axes: &Axes<'_>, x: (f64, f64), y: (f64, f64)) -> Self {
        let apart = |(low, high): (f64, f64)| if high > low { (low, high) } else { (low - 0.5, low + 0.5) };
        Self { x: apart(x), y: apart(y), percent: axes.percent }
    }

    fn at_x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }

    /// The opening tag, the grid and the names of the axes.
    fn open(&self, axes: &Axes<'_>) -> String {
        let (title, bottom, right) = (escape(axes.title), HEIGHT - BOTTOM, WIDTH - RIGHT);
        let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        for tick in ticks(self.y, 6) {
            let y = self.at_y(tick);
            let label = if self.percent { short(100.0 * tick) } else { short(tick) };
            push(&mut out, format_args!("<line class=\"g\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
            push(&mut out, format_args!("<text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", LEFT - 7.0, y + 3.5));
        }
        push(&mut out, format_args!("<line class=\"a\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"));
        let (middle_x, middle_y) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        push(&mut out, format_args!("<text class=\"x n\" x=\"{middle_x}\" y=\"{}\">{}</text>", HEIGHT - 6.0, escape(axes.x)));
        let place = format!("transform=\"rotate(-90 12 {middle_y})\" x=\"12\" y=\"{middle_y}\"");
        push(&mut out, format_args!("<text class=\"x n\" {place}>{}</text>", escape(axes.y)));
        out
    }

    fn x_label(&self, out: &mut String, x: f64, label: &str) {
        push(out, format_args!("<text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", HEIGHT - BOTTOM + 16.0, escape(label)));
    }
}

/// Drops points that are not finite and averages neighbours where there are too many; the first and the last point stay.
fn thin(series: &Series) -> Series {
    let finite: Vec<_> = series.points.iter().copied().filter(|point| point.0.is_finite() && point.1.is_finite()).collect();
    if finite.len() <= MOST_POINTS {
        return Series { name: series.name.clone(), points: finite };
    }
    let (first, last) = (finite[0], finite[finite.len() - 1]);
    let mean = |chunk: &[(f64, f64)]| {
        let sum = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / chunk.len() as f64, sum.1 / chunk.len() as f64)
    };
    let inner = finite[1..finite.len() - 1].chunks(finite.len().div_ceil(MOST_POINTS)).map(mean);
    Series { name: series.name.clone(), points: std::iter::once(first).chain(inner).chain([last]).collect() }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// A range with some air; it starts at 0 where the values are not far above.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let air = (high - low) * 0.06;
    if low >= 0.0 && low < 0.5 * high { (0.0, high + air) } else { (low - air, high + air) }
}

/// At most about `count` round values inside a range: steps of 1, 2 or 5 times a power of ten.
fn ticks((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// A number in at most four digits or so: `12k`, `1.5M`, `0.003`.
fn short(value: f64) -> String {
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    let size = value.abs();
    match size {
        _ if size >= 1e6 => trimmed(format!("{:.1}", value / 1e6)) + "M",
        _ if size >= 1e4 => trimmed(format!("{:.1}", value / 1e3)) + "k",
        _ if size >= 100.0 => trimmed(format!("{value:.0}")),
        _ if !(1e-12..0.01).contains(&size) => trimmed(format!("{value:.3}")),
        _ => format!("{value:.0e}"),
    }
}

fn with_legend<'a>(svg: &str, names: impl ExactSizeIterator<Item = &'a str>) -> String {
    if names.len() < 2 {
        return svg.to_owned();
    }
    let mut out = "<div class=\"legend\">".to_owned();
    for (number, name) in names.enumerate() {
        let sample =
            format!("<svg viewBox=\"0 0 22 8\"><line class=\"l s{}\" x1=\"1\" x2=\"21\" y1=\"4\" y2=\"4\"/></svg>", number % STYLES);
        push(&mut out, format_args!("<span>{sample}{}</span>", escape(name)));
    }
    out + "</div>" + svg
}

/// Text for HTML and SVG, inside and outside of quoted attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_ticks() {
        assert_eq!(ticks((0.0, 1.0), 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks((3.0, 97.0), 5), [20.0, 40.0, 60.0, 80.0]);
        assert_eq!(ticks((0.0, 16000.0), 6), [0.0, 5000.0, 10000.0, 15000.0]);
    }

    #[test]
    fn short_numbers() {
        let texts = [0.0, 0.6000000000000001, 5000.0, 16000.0, 1.5e6, 0.00002, -12.5, 250.0].map(short);
        assert_eq!(texts, ["0", "0.6", "5000", "16k", "1.5M", "2e-5", "-12.5", "250"]);
    }

    #[test]
    fn names_are_escaped_and_bad_numbers_are_left_out() {
        let series = Series { name: "<a&\"b'>".into(), points: vec![(0.0, f64::NAN), (1.0, 2.0), (2.0, f64::INFINITY)] };
        let svg = lines(&Axes { x: "<x>", ..Axes::default() }, &[series.clone(), series]);
        assert!(!svg.contains("<a&") && !svg.contains("<x>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("&lt;a&amp;&quot;b&#39;&gt;"), "{svg}");
        assert_eq!(lines(&Axes::default(), &[Series::default()]), "");
    }

    #[test]
    fn long_lines_are_averaged_between_their_ends() {
        let points: Vec<_> = (0..10_000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thinned = thin(&Series { name: String::new(), points }).points;
        assert!(thinned.len() <= MOST_POINTS + 2 && thinned[0] == (0.0, 0.0) && thinned[thinned.len() - 1] == (9999.0, 1.0));
        assert!(thinned[1..thinned.len() - 2].iter().all(|point| (point.1 - 0.5).abs() < 0.03));
    }

    #[test]
    fn a_point_lies_where_its_values_say() {
        let axes = Axes { x_range: Some((0.0, 1.0)), y_range: Some((0.0, 1.0)), ..Axes::default() };
        let svg = lines(&axes, &[Series { name: "a".into(), points: vec![(0.0, 0.0), (1.0, 1.0)] }]);
        assert!(svg.contains("points=\"54.0,238.0 526.0,12.0\""), "{svg}");
    }
}
