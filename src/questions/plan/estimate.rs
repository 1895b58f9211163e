//! What an estimate says, as data and as text.

use std::fmt;

use serde::Serialize;

use super::corpora::CorpusSize;
use super::scaling::{StageScaling, StepShape};

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageEstimate {
    /// Its name.
    pub stage: String,
    /// Steps.
    pub steps: u64,
    /// Documents a step.
    pub documents_per_step: f64,
    /// Micro-batches of a rank and step.
    pub micro_batches: f64,
    /// Floating-point operations of the whole stage.
    pub flops: f64,
    /// Hours on all ranks that have work.
    pub hours: f64,
    /// Numbers in the model.
    pub parameters: usize,
    /// Memory of one rank, in GB: weights, gradients, moments, activations of a micro-batch, and
    /// the documents.
    pub memory_gb: f64,
    /// One checkpoint, in GB.
    pub checkpoint_gb: f64,
    /// What each rank sends a step, in GB.
    pub traffic_gb: f64,
    /// What it has taken so far in the run folder, if it has a checkpoint there.
    pub took: Option<Took>,
    /// A step, if it trains.
    #[serde(skip)]
    pub(super) shape: Option<StepShape>,
}

/// What the training steps of a stage have taken, without evaluations and checkpoints.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Took {
    /// Steps.
    pub steps: u64,
    /// Hours.
    pub hours: f64,
    /// Ranks of the run's last start.
    pub ranks: usize,
    /// The estimated operations of these steps by time and rank, in TFLOP/s.
    pub tflops: f64,
}

/// A recipe on a number of ranks.
#[derive(Clone, Debug, Serialize)]
pub struct RunEstimate {
    /// Name of the recipe.
    pub name: String,
    /// Ranks.
    pub ranks: usize,
    /// Ranks of a machine.
    pub ranks_per_node: usize,
    /// Assumed rate of a rank in TFLOP/s, and the share of it that training reaches.
    pub tflops: f64,
    /// See [`share`](super::PlanOptions::share).
    pub share: f64,
    /// The documents.
    pub corpora: Vec<CorpusSize>,
    /// The stages, in order.
    pub stages: Vec<StageEstimate>,
    /// How the stages scale, where it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scaling: Vec<StageScaling>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

impl fmt::Display for RunEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, ranks, tflops, share, .. } = self;
        writeln!(
            f,
            "{name} on {ranks} rank(s) of {tflops:.3} TFLOP/s, of which {:.0} % are reached \
             (assumed)\n",
            100.0 * share
        )?;
        for CorpusSize { role, documents, labelled, tokens, entities, source, .. } in &self.corpora
        {
            let means = format!("{tokens:.0} tokens and {entities:.1} entities each");
            writeln!(
                f,
                "{role:<9}{documents:>9} documents, {labelled} labelled, {means} ({source})"
            )?;
        }
        let columns = "steps docs/step micro PFLOP hours params_M memory_GB ckpt_GB GB/step";
        write!(f, "\n{:<22}", "")?;
        columns.split(' ').try_for_each(|name| write!(f, "{:>11}", name.replace('_', " ")))?;
        for stage in &self.stages {
            write!(f, "\n{:<22}{:>11}", stage.stage, stage.steps)?;
            write!(f, "{:>11.0}{:>11.0}", stage.documents_per_step, stage.micro_batches)?;
            write!(f, "{:>11.3}{:>11.3}", stage.flops / 1e15, stage.hours)?;
            write!(f, "{:>11.1}{:>11.2}", stage.parameters as f64 / 1e6, stage.memory_gb)?;
            write!(f, "{:>11.2}{:>11.3}", stage.checkpoint_gb, stage.traffic_gb)?;
        }
        let hours: f64 = self.stages.iter().map(|stage| stage.hours).sum();
        write!(f, "\n{:<22}{hours:>55.3}", "all")?;
        for (stage, took) in self.stages.iter().filter_map(|stage| Some((stage, stage.took?))) {
            let Took { steps, hours, ranks, tflops } = took;
            write!(
                f,
                "\n{:<22}took {hours:.3} hours for {steps} steps on {ranks} rank(s), {tflops:.3} \
                 TFLOP/s each",
                stage.stage
            )?;
        }
        self.scaling.iter().try_for_each(|curve| write!(f, "{curve}"))?;
        self.notes.iter().try_for_each(|note| write!(f, "\nnote: {note}"))
    }
}
