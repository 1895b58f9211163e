//! Small documents and a test of uniformity. Only for tests.

use crate::text::{
    ScoredPair, TokenizedCandidate, TokenizedDocument, TokenizedEntity, TokenizedFact,
    TokenizedMention,
};

/// A document of `entities` entities with one mention each, `name0`, `name1`, …, one word a
/// mention.
pub(crate) fn document(entities: u32) -> TokenizedDocument {
    let entity = |e| TokenizedEntity {
        entity_type: String::new(),
        mentions: vec![mention(&format!("name{e}"), e)],
    };
    TokenizedDocument {
        pieces: (0..entities).collect(),
        word_starts: (0..=entities).collect(),
        sentence_starts: vec![0, entities],
        entities: (0..entities).map(entity).collect(),
        labelled: true,
        ..TokenizedDocument::default()
    }
}

pub(crate) fn mention(name: &str, word: u32) -> TokenizedMention {
    TokenizedMention {
        name: name.into(),
        sentence: 0,
        start: word,
        end: word + 1,
        ..TokenizedMention::default()
    }
}

/// Adds facts given as (head, tail, relation).
pub(crate) fn facts(
    mut document: TokenizedDocument,
    facts: &[(u32, u32, u32)],
) -> TokenizedDocument {
    let fact = |&(head, tail, relation): &(u32, u32, u32)| TokenizedFact {
        head,
        tail,
        relation,
        evidence: vec![],
    };
    document.facts.extend(facts.iter().map(fact));
    document
}

/// Lists the pairs that are asked about, and those that were taken out.
pub(crate) fn ask(
    mut document: TokenizedDocument,
    asked: &[(u32, u32)],
    excluded: &[(u32, u32)],
) -> TokenizedDocument {
    let pairs =
        asked.iter().map(|&pair| (pair, false)).chain(excluded.iter().map(|&pair| (pair, true)));
    document.candidates = Some(
        pairs.map(|((head, tail), excluded)| TokenizedCandidate { head, tail, excluded }).collect(),
    );
    document
}

/// Sets the kept pairs, best first.
pub(crate) fn keep(mut document: TokenizedDocument, pairs: &[(u32, u32)]) -> TokenizedDocument {
    let scored =
        |(i, &(head, tail)): (usize, &(u32, u32))| ScoredPair { head, tail, score: -(i as f32) };
    document.kept = Some(pairs.iter().enumerate().map(scored).collect());
    document
}

/// Asserts that counts look uniform: Pearson's chi-square below its 1 − 10⁻⁵ quantile (Wilson and
/// Hilferty's approximation, z = 4.265).
pub(crate) fn assert_uniform(counts: &[u32]) {
    let weights = vec![1.0; counts.len()];
    assert_proportional(counts, &weights);
}

/// Asserts that counts look proportional to weights, by the same test.
pub(crate) fn assert_proportional(counts: &[u32], weights: &[f64]) {
    let total = f64::from(counts.iter().sum::<u32>());
    let scale = total / weights.iter().sum::<f64>();
    let chi_square: f64 = counts
        .iter()
        .zip(weights)
        .map(|(&n, w)| (f64::from(n) - w * scale).powi(2) / (w * scale))
        .sum();
    let spread = 2.0 / (9.0 * (counts.len() - 1) as f64);
    let bound = (counts.len() - 1) as f64 * (1.0 - spread + 4.265 * spread.sqrt()).powi(3);
    assert!(
        total > 0.0 && chi_square < bound,
        "chi-square {chi_square:.1} exceeds {bound:.1}: {counts:?}"
    );
}

/// Asserts that `hits` of `trials` fits a probability within 4.5 standard deviations.
pub(crate) fn assert_rate(hits: usize, trials: usize, probability: f64) {
    let (rate, trials) = (hits as f64 / trials as f64, trials as f64);
    let bound = 4.5 * (probability * (1.0 - probability) / trials).sqrt();
    assert!(
        (rate - probability).abs() <= bound,
        "rate {rate:.4} is not {probability} ± {bound:.4}"
    );
}
