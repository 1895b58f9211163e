//! What follows from a set of statements, and which sentences one must read to see it.

use std::collections::{BTreeMap, BTreeSet};

use super::schema::{COMPOSITIONS, Triple};

/// Facts with the sentences that express them.
pub(super) type Evidence = BTreeMap<Triple, BTreeSet<usize>>;

/// The statements, their inverses, and the facts composed of two of them. A composed fact that is
/// also stated keeps the evidence of the statement.
pub(super) fn closure(statements: &Evidence) -> Evidence {
    let mut facts = Evidence::new();
    for (statement, sentences) in statements {
        for fact in statement.with_implied() {
            let evidence = facts.entry(fact).or_default();
            // A second way to the same fact adds no evidence.
            if evidence.is_empty() {
                evidence.extend(sentences);
            }
        }
    }
    for (fact, sentences) in compose(&facts) {
        facts.entry(fact).or_insert(sentences);
    }
    facts
}

/// The facts made of two of `facts`.
pub(super) fn compose(facts: &Evidence) -> Evidence {
    let mut composed = Evidence::new();
    for (first, second, whole) in COMPOSITIONS {
        for (a, a_sentences) in facts.iter().filter(|(fact, _)| fact.rel == first) {
            for (b, b_sentences) in facts.iter().filter(|(fact, _)| {
                fact.rel == second && fact.head == a.tail && fact.tail != a.head
            }) {
                composed
                    .entry(Triple::new(a.head, whole, b.tail))
                    .or_insert_with(|| a_sentences.union(b_sentences).copied().collect());
            }
        }
    }
    composed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::synth::schema::Rel;

    #[test]
    fn birth_in_a_city_is_birth_in_its_country() {
        let statements = Evidence::from([
            (Triple::new(0, Rel::BirthPlace, 1), [0].into()),
            (Triple::new(2, Rel::Capital, 1), [3, 4].into()),
        ]);
        let facts = closure(&statements);
        assert_eq!(facts[&Triple::new(0, Rel::BirthCountry, 2)], [0, 3, 4].into());
        assert_eq!(facts[&Triple::new(1, Rel::CapitalOf, 2)], [3, 4].into());
        assert_eq!(facts.len(), 5);
    }
}
