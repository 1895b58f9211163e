//! The options of the generated world: also a table of the recipe, and the flags of `synth`.

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The generated world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(default)]
#[schemars(rename = "SynthSource")]
pub struct WorldOptions {
    /// Distant documents.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    #[arg(help = "Number of distantly supervised documents")]
    pub distant: usize,
    /// Annotated training documents.
    #[arg(long, value_name = "N", default_value_t = 200)]
    #[arg(help = "Number of human-annotated training documents")]
    pub human: usize,
    /// Development documents.
    #[arg(long, value_name = "N", default_value_t = 100, help = "Number of development documents")]
    pub dev: usize,
    /// Test documents.
    #[arg(long, value_name = "N", default_value_t = 200, help = "Number of test documents")]
    pub test: usize,
    /// Share of false labels among the distant ones.
    // From 0 to 0.8. The same share of known facts is left out of the text in all splits.
    #[arg(long, value_name = "P", default_value_t = 0.4)]
    #[arg(help = "Share of distant labels that are false")]
    pub noise: f64,
    /// Seed of the world, apart from the recipe's so that several runs can share one corpus.
    // Every file is a pure function of the options.
    #[arg(long, value_name = "S", default_value_t = 1, help = "Seed of the world")]
    pub seed: u64,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self { distant: 2000, human: 200, dev: 100, test: 200, noise: 0.4, seed: 1 }
    }
}
