//! A place for every title on the line [0, 1): splits that depend on the title alone, never on
//! order or number of documents.

use crate::base::hash_number;

/// The position of a title in [0, 1), uniform over titles and independent between salts.
///
/// A document with position below 0.1 belongs to the same tenth in every file it ever appears in.
pub fn title_position(title: &str, salt: &str) -> f64 {
    let mut hasher = blake3::Hasher::new();
    // The length keeps ("ab", "c") and ("a", "bc") apart.
    hasher
        .update(&(salt.len() as u64).to_le_bytes())
        .update(salt.as_bytes())
        .update(title.as_bytes());
    // 53 bits are what an f64 holds exactly, so that 1.0 can never come out.
    (hash_number(&hasher.finalize()) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_uniform_and_salts_independent() {
        let positions: Vec<(f64, f64)> = (0..10_000)
            .map(|i| format!("title {i}"))
            .map(|title| (title_position(&title, "a"), title_position(&title, "b")))
            .collect();
        assert!(positions.iter().all(|(a, _)| (0.0..1.0).contains(a)));
        let share = |test: &dyn Fn(&(f64, f64)) -> bool| {
            positions.iter().filter(|pair| test(pair)).count() as f64 / 10_000.0
        };
        // Four standard deviations of a binomial share of 10,000.
        assert!((share(&|(a, _)| *a < 0.1) - 0.1).abs() < 0.012);
        assert!((share(&|(a, b)| *a < 0.5 && *b < 0.5) - 0.25).abs() < 0.018);
    }

    #[test]
    fn a_position_never_changes() {
        assert_eq!(title_position("Lark Force", "pilot"), title_position("Lark Force", "pilot"));
        assert_ne!(title_position("b", "a"), title_position("", "ab"));
    }
}
