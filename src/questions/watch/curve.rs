//! A curve drawn with block characters, for terminals. Not for: pages (`report`).

/// Blocks from an eighth to a whole cell.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The curve in so many columns and rows, the top row first. Neighbouring points share a column
/// with their mean; fewer points than columns take one column each. The lowest value is an eighth
/// of a cell high.
pub(super) fn curve(points: &[(f64, f64)], columns: usize, rows: usize) -> Vec<String> {
    let values: Vec<f64> =
        points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    let columns = columns.min(values.len());
    if columns == 0 {
        return vec![String::new(); rows];
    }
    let mean = |column: usize| {
        let edge = |column: usize| column * values.len() / columns;
        let part = &values[edge(column)..edge(column + 1)];
        part.iter().sum::<f64>() / part.len() as f64
    };
    let means: Vec<f64> = (0..columns).map(mean).collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let most = (8 * rows).saturating_sub(1) as f64;
    let share = |value: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
    let eighths: Vec<usize> =
        means.iter().map(|&mean| 1 + (most * share(mean)).round() as usize).collect();
    let cell = |eighths: usize, below: usize| match eighths.saturating_sub(8 * below) {
        0 => ' ',
        high => BLOCKS[high.min(8) - 1],
    };
    (0..rows).rev().map(|row| eighths.iter().map(|&high| cell(high, row)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_follow_the_values() {
        let points = |values: &[f64]| -> Vec<(f64, f64)> {
            values.iter().enumerate().map(|(step, value)| (step as f64, *value)).collect()
        };
        assert_eq!(curve(&points(&[0.0, 1.0, 2.0, 7.0]), 9, 1), ["▁▂▃█"]);
        assert_eq!(curve(&points(&[0.0, 15.0, 8.0]), 9, 2), [" █▁", "▁██"]);
        // Two points a column: means 1 and 5.
        assert_eq!(curve(&points(&[0.0, 2.0, 4.0, 6.0]), 2, 1), ["▁█"]);
        assert_eq!(curve(&points(&[f64::NAN, 3.0, f64::INFINITY]), 9, 1), ["▅"]);
        assert_eq!(curve(&[], 9, 2), ["", ""]);
        assert_eq!(curve(&points(&[1.0, 2.0]), 0, 1), [""]);
        assert!(curve(&points(&[1.0]), 9, 0).is_empty());
    }
}
