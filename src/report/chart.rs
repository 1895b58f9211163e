//! Line charts, bar charts and tables of counts as small inline SVG. Colours, fonts and dash
//! patterns are CSS classes ([`style`]), so that one drawing works on light and dark screens, in
//! print, and as a file. Not for: choosing what to draw (`html`, `plots`).

use super::Series;

/// Size of the drawing and its margins, in SVG units. The page scales it to fit the column.
const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 280.0;
pub(super) const LEFT: f64 = 54.0;
pub(super) const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;
/// Height of a line of labels, and of a row of the legend.
const LABEL_LINE: f64 = 13.0;
pub(super) const LEGEND_ROW: f64 = 18.0;
/// The widest that a bar can be.
const WIDEST_BAR: f64 = 72.0;
/// The most letters of a turned label, or of the name of a row or column. The rest is cut off.
const LONGEST_LABEL: usize = 22;
/// How far labels are turned, in degrees, where they would touch each other.
const TURN: f64 = 60.0;

/// Number of distinct line and bar styles.
const STYLES: usize = 8;
/// The dash pattern of each line style.
const DASHES: [&str; STYLES] = ["", "7 4", "2 4", "9 3 2 3", "4 3", "12 4", "1 4", "9 3 2 3 2 3"];
/// Colours for a white background, by the names that the page uses.
pub(super) const LIGHT: [(&str, &str); 12] = [
    ("c0", "#0072b2"),
    ("c1", "#d55e00"),
    ("c2", "#009e73"),
    ("c3", "#c0609b"),
    ("c4", "#b98500"),
    ("c5", "#3f9fd8"),
    ("c6", "#4a5568"),
    ("c7", "#8c6d31"),
    ("card", "#fff"),
    ("ink", "#1c2330"),
    ("soft", "#5b6577"),
    ("line", "#e1e5eb"),
];
/// A line is reduced to about this many points. More would not be visible.
const MOST_POINTS: usize = 240;

/// The names and ranges of the axes, and how values are printed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Axes<'a> {
    /// What the drawing shows, for people who cannot see it.
    pub title: &'a str,
    /// Name of the horizontal axis.
    pub x: &'a str,
    /// Name of the vertical axis.
    pub y: &'a str,
    /// Fixed horizontal range.
    pub x_range: Option<(f64, f64)>,
    /// Fixed vertical range.
    pub y_range: Option<(f64, f64)>,
    /// Whether y values are fractions, which are printed in per cent.
    pub percent: bool,
    /// Whether to draw a dot at each point of a line.
    pub dots: bool,
}

/// A chart with one line for each series; an empty text if no series has a finite point.
pub(crate) fn lines(axes: &Axes<'_>, series: &[Series]) -> String {
    let drawn: Vec<Series> = series.iter().map(thin).collect();
    let points = || drawn.iter().flat_map(|series| &series.points);
    let (Some(xs), Some(ys)) =
        (range(points().map(|point| point.0)), range(points().map(|point| point.1)))
    else {
        return String::new();
    };
    let names: Vec<&str> = drawn.iter().map(|series| series.name.as_str()).collect();
    let frame = Frame::new(axes.x_range.unwrap_or(xs), axes.y_range.unwrap_or_else(|| padded(ys)));
    let mut out =
        frame.open(axes, &names, |style| format!("<line class=\"l s{style}\" x2=\"20\"/>"));
    for tick in ticks(frame.x, 6) {
        frame.x_label(&mut out, frame.at_x(tick), &short(tick));
    }
    for (number, series) in drawn.iter().enumerate() {
        let style = number % STYLES;
        let path: Vec<String> = series
            .points
            .iter()
            .map(|p| format!("{:.1},{:.1}", frame.at_x(p.0), frame.at_y(p.1)))
            .collect();
        out += &format!("<polyline class=\"l s{style}\" points=\"{}\"/>", path.join(" "));
        for point in series.points.iter().filter(|_| axes.dots || series.points.len() == 1) {
            let (x, y, label) = (frame.at_x(point.0), frame.at_y(point.1), axes.value(point.1));
            let title = format!(
                "{} · {} {}: {label}",
                escape(&series.name),
                escape(axes.x),
                short(point.0)
            );
            out += &format!(
                "<circle class=\"d s{style}\" cx=\"{x:.1}\" cy=\"{y:.1}\" \
                     r=\"3.2\"><title>{title}</title></circle>"
            );
        }
    }
    out + "</svg>"
}

/// A chart of groups of bars, one bar for each series. `values[series][group]` is the height; a
/// missing value leaves a gap. The name of a group can have a second line.
pub(crate) fn bars(
    axes: &Axes<'_>,
    groups: &[String],
    names: &[&str],
    values: &[Vec<Option<f64>>],
) -> String {
    let Some(ys) = range(values.iter().flatten().flatten().copied()) else { return String::new() };
    let highest = if ys.1 > 0.0 { ys.1 * 1.08 } else { 1.0 };
    let frame = Frame::new((0.0, groups.len() as f64), axes.y_range.unwrap_or((0.0, highest)))
        .with_groups(groups);
    let mut out = frame.open(axes, names, |style| {
        format!("<rect class=\"b s{style}\" y=\"-5\" width=\"20\" height=\"10\" rx=\"1.5\"/>")
    });
    // Widths are shares of a group's place. Few groups do not make bars too wide to compare.
    let place_width = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    let width = (0.74 / names.len().max(1) as f64).min(WIDEST_BAR / place_width);
    let first = 0.5 - width * names.len() as f64 / 2.0;
    for (place, group) in groups.iter().enumerate() {
        frame.x_label(&mut out, frame.at_x(place as f64 + 0.5), group);
        for (number, series) in values.iter().enumerate() {
            let Some(value) =
                series.get(place).copied().flatten().filter(|value| value.is_finite())
            else {
                continue;
            };
            let left = frame.at_x(place as f64 + first + width * number as f64);
            let right = frame.at_x(place as f64 + first + width * (number + 1) as f64);
            let (y, label, style) = (frame.at_y(value), axes.value(value), number % STYLES);
            let (w, h) = (right - left - 1.5, frame.at_y(frame.y.0) - y);
            let name = names.get(number).copied().unwrap_or_default();
            let title =
                format!("{} · {}: {label}", escape(name), escape(&group.replace('\n', " · ")));
            out += &format!(
                "<rect class=\"b s{style}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" \
                     height=\"{h:.1}\" rx=\"1.5\"><title>{title}</title></rect>"
            );
            if text_width(&label) < w + 5.0 {
                out += &format!(
                    "<text class=\"v\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                    left + w / 2.0,
                    y - 4.0
                );
            }
        }
    }
    out + "</svg>"
}

/// Side of a cell of a [`grid`].
const CELL: f64 = 34.0;
/// From this share of its row on, a cell is so dark that its number is printed in the colour of the
/// page.
const DARK: f64 = 0.55;

/// A square table of counts with the same names for rows and columns. The shade of a cell is its
/// share of the row.
pub(crate) fn grid(axes: &Axes<'_>, names: &[String], counts: &[Vec<usize>]) -> String {
    let labels: Vec<String> = names.iter().map(|name| cut(name)).collect();
    let room = labels.iter().map(|label| text_width(label)).fold(0.0, f64::max);
    // The axis name goes left of the row names; the last column name sticks out to the right.
    let (first, leaning) = (room + 38.0, room * std::f64::consts::FRAC_1_SQRT_2);
    let side = first + CELL * names.len() as f64;
    let mut out = opening(side + leaning.max(RIGHT), side + RIGHT, axes.title);
    let at = |place: usize| first + CELL * place as f64;
    for (row, (name, counts)) in names.iter().zip(counts).enumerate() {
        let (middle, text, total) =
            (at(row) + CELL / 2.0, escape(&labels[row]), counts.iter().sum::<usize>().max(1));
        let label = escape(name);
        out += &format!(
            "<text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
            at(0) - 7.0,
            middle + 4.0
        );
        let turn = format!("transform=\"rotate(-45 {middle:.1} {:.1})\"", at(0) - 8.0);
        out += &format!("<text {turn} x=\"{middle:.1}\" y=\"{:.1}\">{text}</text>", at(0) - 8.0);
        for (column, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let share = count as f64 / total as f64;
            let (x, y, shade, ink) =
                (at(column), at(row), 0.08 + 0.87 * share, if share < DARK { "v" } else { "v i" });
            let title = format!(
                "{label} → {}: {count}",
                escape(names.get(column).map_or("", String::as_str))
            );
            out += &format!(
                "<rect class=\"h\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{CELL}\" \
                     height=\"{CELL}\" fill-opacity=\"{shade:.2}\"><title>{title}</title></rect>"
            );
            let (x, y) = (x + CELL / 2.0, y + CELL / 2.0 + 4.0);
            out += &format!(
                "<text class=\"{ink}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
                short(count as f64)
            );
        }
    }
    for line in 0..=names.len() {
        let (place, end) = (at(line), at(names.len()));
        out += &format!(
            "<path class=\"g\" d=\"M{first:.1} {place:.1}H{end:.1}M{place:.1} \
                 {first:.1}V{end:.1}\"/>"
        );
    }
    let middle = (at(0) + at(names.len())) / 2.0;
    out += &format!("<text class=\"x n\" x=\"{middle:.1}\" y=\"14\">{}</text>", escape(axes.x));
    out + &y_name(axes.y, &format!("{middle:.1}")) + "</svg>"
}

/// The CSS rules for the classes in the drawings; `colour` looks up a colour by its name in
/// [`LIGHT`].
pub(super) fn style(colour: impl Fn(&str) -> String) -> String {
    let [ink, soft, line, card, first] = ["ink", "soft", "line", "card", "c0"].map(&colour);
    let mut rules = format!(
        "svg text{{font-size:11.5px;fill:{soft}}}svg text.x,svg text.v{{text-anchor:middle}}\
         svg text.y{{text-anchor:end}}svg text.n{{font-size:12px}}\
         svg text.v{{fill:{ink};font-size:11px}}svg text.i{{fill:{card}}}svg .h{{fill:{first}}}\
         svg .g{{stroke:{line};fill:none}}svg .a{{stroke:{soft}}}\
         svg .d{{stroke:{card};stroke-width:1.2}}\
         svg .l{{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}}"
    );
    for (number, dashes) in DASHES.iter().enumerate() {
        let colour = colour(&format!("c{number}"));
        rules += &format!(
            "svg .l.s{number}{{stroke:{colour}}}svg .d.s{number},svg .b.s{number}{{fill:{colour}}}"
        );
        if !dashes.is_empty() {
            rules += &format!("svg .l.s{number}{{stroke-dasharray:{dashes}}}");
        }
    }
    rules
}

/// A drawing as a complete SVG file, in fixed colours on white.
pub(crate) fn standalone(svg: &str) -> String {
    let rules = style(|name| {
        LIGHT
            .iter()
            .find(|colour| colour.0 == name)
            .map_or_else(String::new, |colour| colour.1.to_owned())
    });
    let background = format!(
        "<style>svg text{{font-family:sans-serif}}{rules}</style><rect width=\"100%\" \
         height=\"100%\" fill=\"#fff\"/>"
    );
    let (head, rest) = svg.split_once('>').unwrap_or((svg, ""));
    format!(
        "{}>{background}{rest}\n",
        head.replacen("<svg", "<svg xmlns=\"http://www.w3.org/2000/svg\"", 1)
    )
}

/// The opening tag of a drawing.
pub(super) fn opening(width: f64, height: f64, title: &str) -> String {
    let title = escape(title);
    format!("<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">")
}

/// The name of the vertical axis.
fn y_name(name: &str, middle: &str) -> String {
    let place = format!("transform=\"rotate(-90 12 {middle})\" x=\"12\" y=\"{middle}\"");
    format!("<text class=\"x n\" {place}>{}</text>", escape(name))
}

impl Axes<'_> {
    fn value(&self, value: f64) -> String {
        if self.percent { format!("{:.1}", 100.0 * value) } else { short(value) }
    }
}

/// Where values lie in the drawing.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    /// Extra height for labels below the axis, beyond one line.
    room: f64,
    /// Whether labels are turned.
    turned: bool,
}

impl Frame {
    fn new(x: (f64, f64), y: (f64, f64)) -> Self {
        let apart =
            |(low, high): (f64, f64)| if high > low { (low, high) } else { (low - 0.5, low + 0.5) };
        Self { x: apart(x), y: apart(y), room: 0.0, turned: false }
    }

    /// Makes room for the names of groups. They keep their lines where they fit side by side;
    /// otherwise they are turned.
    fn with_groups(mut self, groups: &[String]) -> Self {
        let slot = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
        self.turned =
            groups.iter().flat_map(|group| group.lines()).any(|line| text_width(line) > slot - 4.0);
        self.room = if self.turned {
            let longest =
                groups.iter().map(|group| text_width(&in_one_line(group))).fold(0.0, f64::max);
            (longest * TURN.to_radians().sin() - LABEL_LINE / 2.0).max(0.0)
        } else {
            LABEL_LINE
                * (groups.iter().map(|group| group.lines().count()).max().unwrap_or(1).max(1) - 1)
                    as f64
        };
        self
    }

    fn at_x(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }

    /// The start of the drawing: the opening tag, the grid lines, the names of the axes, and a
    /// legend where there are several series. `sample` draws an example of a style.
    fn open(&self, axes: &Axes<'_>, names: &[&str], sample: impl Fn(usize) -> String) -> String {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let (legend, rows) = legend(names, HEIGHT + self.room + LEGEND_ROW / 2.0, sample);
        let height = HEIGHT + self.room + LEGEND_ROW * rows as f64;
        let mut out = opening(WIDTH, height, axes.title) + &legend;
        for tick in ticks(self.y, 6) {
            let y = self.at_y(tick);
            let label = short(if axes.percent { 100.0 * tick } else { tick });
            out += &format!(
                "<line class=\"g\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            out += &format!(
                "<text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                LEFT - 7.0,
                y + 3.5
            );
        }
        out += &format!(
            "<line class=\"a\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
        );
        let (middle_x, middle_y) = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        out += &format!(
            "<text class=\"x n\" x=\"{middle_x}\" y=\"{:.1}\">{}</text>",
            HEIGHT + self.room - 6.0,
            escape(axes.x)
        );
        out + &y_name(axes.y, &middle_y.to_string())
    }

    fn x_label(&self, out: &mut String, x: f64, label: &str) {
        let y = HEIGHT - BOTTOM + 16.0;
        if self.turned {
            let (y, text) = (y - 3.0, escape(&in_one_line(label)));
            *out += &format!(
                "<text class=\"y\" transform=\"rotate(-{TURN} {x:.1} {y})\" x=\"{x:.1}\" \
                     y=\"{y}\">{text}</text>"
            );
            return;
        }
        for (number, line) in label.lines().enumerate() {
            let y = y + LABEL_LINE * number as f64;
            *out += &format!("<text class=\"x\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(line));
        }
    }
}

/// The legend, in rows from `top` on, and the number of its rows. One series needs no legend.
pub(super) fn legend(names: &[&str], top: f64, draw: impl Fn(usize) -> String) -> (String, usize) {
    if names.len() < 2 {
        return (String::new(), 0);
    }
    let (mut out, mut x, mut row) = (String::new(), LEFT, 0);
    for (number, name) in names.iter().enumerate() {
        let width = 26.0 + text_width(name) + 18.0;
        if x > LEFT && x + width > WIDTH {
            (x, row) = (LEFT, row + 1);
        }
        let (y, sample) = (top + LEGEND_ROW * row as f64, draw(number % STYLES));
        out += &format!(
            "<g transform=\"translate({x:.1} {y:.1})\">{sample}<text x=\"26\" \
                 y=\"4\">{}</text></g>",
            escape(name)
        );
        x += width;
    }
    (out, row + 1)
}

/// Roughly how wide a text is at the size of labels. The fonts of the reader are not known here.
fn text_width(text: &str) -> f64 {
    text.chars()
        .map(|letter| {
            if letter.is_ascii() {
                6.3
            } else if ('\u{2e80}'..'\u{ffff}').contains(&letter) {
                11.5
            } else {
                7.2
            }
        })
        .sum()
}

/// A label that is cut if it is too long.
fn cut(label: &str) -> String {
    cut_at(label, LONGEST_LABEL)
}

/// Both lines of a group's name in one line. The second line is the size, and is never cut.
fn in_one_line(label: &str) -> String {
    match label.split_once('\n') {
        Some((name, size)) => format!(
            "{} · {size}",
            cut_at(name, LONGEST_LABEL.saturating_sub(size.chars().count() + 3))
        ),
        None => cut(label),
    }
}

/// At most `most` letters; an ellipsis replaces the rest.
fn cut_at(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

/// Drops points that are not finite. Where there are too many points, neighbours are averaged; the
/// first and the last point stay.
fn thin(series: &Series) -> Series {
    let finite: Vec<_> = series
        .points
        .iter()
        .copied()
        .filter(|point| point.0.is_finite() && point.1.is_finite())
        .collect();
    if finite.len() <= MOST_POINTS {
        return Series { name: series.name.clone(), points: finite };
    }
    let (first, last) = (finite[0], finite[finite.len() - 1]);
    let mean = |chunk: &[(f64, f64)]| {
        let sum = chunk.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / chunk.len() as f64, sum.1 / chunk.len() as f64)
    };
    let inner = finite[1..finite.len() - 1].chunks(finite.len().div_ceil(MOST_POINTS)).map(mean);
    Series {
        name: series.name.clone(),
        points: std::iter::once(first).chain(inner).chain([last]).collect(),
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// A range with some space around it. It starts at 0 if the values are not far above 0.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let air = (high - low) * 0.06;
    if low >= 0.0 && low < 0.5 * high { (0.0, high + air) } else { (low - air, high + air) }
}

/// About `count` round values inside a range, in steps of 1, 2 or 5 times a power of ten.
pub(super) fn ticks((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// A number in about four digits at most: `12k`, `1.5M`, `0.003`.
pub(super) fn short(value: f64) -> String {
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

/// Text that is safe in HTML and SVG, inside and outside of quoted attributes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
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
        let texts =
            [0.0, 0.6000000000000001, 5000.0, 16000.0, 1.5e6, 0.00002, -12.5, 250.0].map(short);
        assert_eq!(texts, ["0", "0.6", "5000", "16k", "1.5M", "2e-5", "-12.5", "250"]);
    }

    #[test]
    fn names_are_escaped_and_bad_numbers_are_left_out() {
        let series = Series {
            name: "<a&\"b'>".into(),
            points: vec![(0.0, f64::NAN), (1.0, 2.0), (2.0, f64::INFINITY)],
        };
        let svg = lines(&Axes { x: "<x>", ..Axes::default() }, &[series.clone(), series]);
        assert!(
            !svg.contains("<a&")
                && !svg.contains("<x>")
                && !svg.contains("NaN")
                && !svg.contains("inf"),
            "{svg}"
        );
        assert!(svg.contains("&lt;a&amp;&quot;b&#39;&gt;"), "{svg}");
        assert_eq!(lines(&Axes::default(), &[Series::default()]), "");
    }

    #[test]
    fn long_lines_are_averaged_between_their_ends() {
        let points: Vec<_> = (0..10_000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thinned = thin(&Series { name: String::new(), points }).points;
        assert!(
            thinned.len() <= MOST_POINTS + 2
                && thinned[0] == (0.0, 0.0)
                && thinned[thinned.len() - 1] == (9999.0, 1.0)
        );
        assert!(thinned[1..thinned.len() - 2].iter().all(|point| (point.1 - 0.5).abs() < 0.03));
    }

    #[test]
    fn a_point_lies_where_its_values_say() {
        let axes = Axes { x_range: Some((0.0, 1.0)), y_range: Some((0.0, 1.0)), ..Axes::default() };
        let svg =
            lines(&axes, &[Series { name: "a".into(), points: vec![(0.0, 0.0), (1.0, 1.0)] }]);
        assert!(svg.contains("points=\"54.0,238.0 526.0,12.0\""), "{svg}");
    }

    fn height(svg: &str) -> f64 {
        svg.split(['"', ' ']).nth(5).unwrap().parse().unwrap()
    }

    #[test]
    fn labels_that_would_touch_are_turned_and_get_room() {
        let groups = |name: &str| vec![name.to_owned(); 12];
        let draw =
            |groups: &[String]| bars(&Axes::default(), groups, &["F1"], &[vec![Some(1.0); 12]]);
        let (upright, two_lines, turned) = (
            draw(&groups("P17")),
            draw(&groups("P17\n390")),
            draw(&groups("long-tail relations\n390")),
        );
        assert!(
            !upright.contains("rotate(-60")
                && !two_lines.contains("rotate(-60")
                && turned.contains("rotate(-60")
        );
        assert_eq!((height(&upright), height(&two_lines)), (HEIGHT, HEIGHT + LABEL_LINE));
        assert!(
            height(&turned) > HEIGHT + 40.0 && turned.contains("long-tail relat… · 390"),
            "{turned}"
        );
    }

    #[test]
    fn a_legend_breaks_into_rows() {
        let series = |names: &[&str]| {
            names
                .iter()
                .map(|name| Series { name: (*name).into(), points: vec![(0.0, 1.0)] })
                .collect::<Vec<_>>()
        };
        let draw = |names: &[&str]| lines(&Axes::default(), &series(names));
        assert_eq!(height(&draw(&["one"])), HEIGHT);
        assert_eq!(height(&draw(&["one", "two"])), HEIGHT + LEGEND_ROW);
        let long = "a name of some forty letters, as files are";
        assert_eq!(height(&draw(&[long, long, "c"])), HEIGHT + 2.0 * LEGEND_ROW);
    }
}
