//! The options of the generated world.

/// The size and character of a world.
#[derive(Clone, Debug, PartialEq)]
pub struct WorldOptions {
    /// Distantly labelled documents.
    pub distant: usize,
    /// Annotated training documents.
    pub human: usize,
    /// Development documents.
    pub dev: usize,
    /// Test documents.
    pub test: usize,
    /// Share of false labels among all distant labels, 0 to 0.8. The same share of known facts is
    /// left out of the text in all splits.
    pub noise: f64,
    /// Every file is a pure function of the options.
    pub seed: u64,
}
