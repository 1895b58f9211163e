//! The noise of stage 2 (docs/systems.md, I.17): which pairs enter which loss, and which relation
//! inputs are wrong. Drawn on the host.
//!
//! Not for: predictions as inputs, which exist only in the forward pass; there this module says
//! what becomes of them.

use rand::RngExt;
use rand::seq::SliceRandom;

use super::settings::{DocreIiSettings, NoiseScope, NoiseSource};
use crate::sampling::{Purpose, Stream, rng};
use crate::systems::{Classes, Example};

/// What a view's relation input is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum RelationSource {
    /// Multi-hot labels, [P × C] row-major.
    Labels(Vec<f32>),
    /// The base module's predictions, of which every relation is replaced where its number in
    /// `draws` `[P]` is below `rate` `[P]`, by the first class from `classes` `[P]` on that was not
    /// predicted.
    Predictions {
        /// Uniform numbers in [0, 1).
        draws: Vec<f32>,
        /// The share to be replaced.
        rates: Vec<f32>,
        /// Where the search for a wrong class begins.
        classes: Vec<usize>,
    },
}

/// One noisy view of the relation matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct NoisyRelations {
    /// Relation inputs.
    pub relations: RelationSource,
    /// Pairs that enter the view's loss.
    pub rows: Vec<i64>,
}

/// The noise of one micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// Pairs that enter the base module's loss.
    pub base_rows: Vec<i64>,
    /// Views A and B.
    pub views: [NoisyRelations; 2],
}

impl Noise {
    /// Denominators of the four slots.
    pub(super) fn counts(&self, pairs: usize, contrast: bool, base: bool) -> Vec<f64> {
        let when = |on: bool, count: usize| if on { count as f64 } else { 0.0 };
        vec![
            when(base, self.base_rows.len()),
            self.views[0].rows.len() as f64,
            self.views[1].rows.len() as f64,
            when(contrast, pairs),
        ]
    }
}

/// The pairs among which one draw is made.
struct Scope {
    positives: Vec<usize>,
    negatives: Vec<usize>,
}

/// Which pairs a draw took: positives and negatives, and those of each that are to be wrong.
struct Drawn {
    negatives: Vec<usize>,
    wrong: Vec<usize>,
}

/// Draws the noise of a micro-batch.
pub(super) fn draw(
    examples: &[Example],
    classes: Classes,
    settings: &DocreIiSettings,
    seed: u64,
) -> Noise {
    let targets: Vec<f32> = examples
        .iter()
        .flat_map(|example| classes.targets(&example.document, &example.pairs))
        .collect();
    let width = classes.count();
    let mut noise = Noise {
        base_rows: Vec::new(),
        views: [true, false].map(|_| view(settings, &targets, width)),
    };
    let mut first = 0;
    let sizes: Vec<usize> = examples.iter().map(|example| example.pairs.len()).collect();
    let scopes: Vec<usize> = match settings.noise_scope {
        NoiseScope::Document => sizes,
        NoiseScope::Batch => vec![sizes.iter().sum()],
    };
    for (size, example) in scopes.into_iter().zip(examples) {
        let (positives, negatives) =
            (first..first + size).partition(|pair| targets[pair * width] == 0.0);
        let mut stream = rng(seed, Purpose::Noise, example.visit, 0);
        draw_scope(
            &mut noise,
            &Scope { positives, negatives },
            &targets,
            width,
            settings,
            &mut stream,
        );
        first += size;
    }
    noise
}

fn view(settings: &DocreIiSettings, targets: &[f32], width: usize) -> NoisyRelations {
    let pairs = targets.len() / width;
    let relations = match settings.noise_source {
        NoiseSource::Gold => RelationSource::Labels(targets.to_vec()),
        NoiseSource::Base => RelationSource::Predictions {
            draws: vec![0.0; pairs],
            rates: vec![0.0; pairs],
            classes: vec![0; pairs],
        },
    };
    NoisyRelations { relations, rows: Vec::new() }
}

fn draw_scope(
    noise: &mut Noise,
    scope: &Scope,
    targets: &[f32],
    width: usize,
    settings: &DocreIiSettings,
    stream: &mut Stream,
) {
    let drawn = scope.draw(settings, stream);
    noise.base_rows.extend(sorted(scope.positives.iter().chain(&drawn.negatives)));
    for (number, view) in noise.views.iter_mut().enumerate() {
        let drawn = scope.draw(settings, stream);
        match &mut view.relations {
            RelationSource::Labels(labels) => {
                drawn.wrong.iter().for_each(|&pair| corrupt(labels, targets, pair, width, stream));
            }
            RelationSource::Predictions { draws, rates, classes } => {
                let rate = within(settings.noise_rate, stream) as f32;
                for &pair in scope.positives.iter().chain(&scope.negatives) {
                    (draws[pair], rates[pair], classes[pair]) =
                        (stream.random(), rate, stream.random_range(0..width));
                }
            }
        }
        // View B sees all positives, a part of the negatives, and whatever was made wrong.
        let mut negatives = drawn.negatives;
        if number == 1 {
            negatives.shuffle(stream);
            negatives.truncate(share(settings.view_b_negatives, negatives.len()));
        }
        let wrong: &[usize] =
            if settings.noise_source == NoiseSource::Gold { &drawn.wrong } else { &[] };
        view.rows.extend(sorted(scope.positives.iter().chain(&negatives).chain(wrong)));
    }
}

fn sorted<'a>(pairs: impl Iterator<Item = &'a usize>) -> Vec<i64> {
    let mut rows: Vec<i64> = pairs.map(|&pair| pair as i64).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn within([low, high]: [f64; 2], stream: &mut Stream) -> f64 {
    low + (high - low) * stream.random::<f64>()
}

fn share(part: f64, of: usize) -> usize {
    (part * of as f64) as usize
}

impl Scope {
    /// All positives; five times as many negatives, or as many as there are; which of both are to
    /// be wrong.
    fn draw(&self, settings: &DocreIiSettings, stream: &mut Stream) -> Drawn {
        let mut negatives = self.negatives.clone();
        negatives.shuffle(stream);
        if settings.negatives > 0 {
            negatives.truncate(settings.negatives * self.positives.len());
        }
        let mut positives = self.positives.clone();
        positives.shuffle(stream);
        let mut wrong = Vec::new();
        for (pairs, range) in
            [(&positives, settings.positive_noise), (&negatives, settings.negative_noise)]
        {
            let count = share(within(range, stream), pairs.len()) + 1;
            wrong.extend(pairs.iter().take(count));
        }
        Drawn { negatives, wrong }
    }
}

/// Replaces a pair's labels by one that is not true of it; "no relation" among them where a
/// relation holds.
fn corrupt(labels: &mut [f32], targets: &[f32], pair: usize, width: usize, stream: &mut Stream) {
    let range = pair * width..(pair + 1) * width;
    let wrong: Vec<usize> =
        (0..width).filter(|&class| targets[range.start + class] == 0.0).collect();
    if wrong.is_empty() {
        return;
    }
    labels[range.clone()].fill(0.0);
    labels[range.start + wrong[stream.random_range(0..wrong.len())]] = 1.0;
}
