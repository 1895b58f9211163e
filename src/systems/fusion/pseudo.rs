//! Pseudo documents: the sentences that are evidence of a pair, as a document of their own
//! (docs/systems.md, E.6).

use std::collections::{BTreeSet, HashSet};

use crate::sampling::Pair;
use crate::text::{TokenizedCandidate, TokenizedDocument, TokenizedEntity, TokenizedMention};

/// Some sentences of a document, with the entities that they mention.
#[derive(Clone, Debug, PartialEq)]
pub struct PseudoDocument {
    /// The sentences as a document, without labels.
    pub document: TokenizedDocument,
    /// The entity of the whole document that each of its entities is.
    pub entities: Vec<u32>,
    /// The sentence of the whole document that each of its sentences is.
    pub sentences: Vec<u32>,
}

/// The pseudo documents of a document, in the order of its pairs: one for each set of evidence
/// sentences, completed by the earliest sentence of a head or tail that it does not mention.
pub fn pseudo_documents(
    document: &TokenizedDocument,
    evidence: impl IntoIterator<Item = (Pair, Vec<usize>)>,
) -> Vec<PseudoDocument> {
    let (mut seen, mut all) = (HashSet::new(), Vec::new());
    for ((head, tail), sentences) in evidence.into_iter().filter(|(_, own)| !own.is_empty()) {
        let mut chosen: BTreeSet<u32> = sentences.iter().map(|&at| at as u32).collect();
        // The release looks for the head, then for the tail among the sentences of both.
        for entity in [head, tail] {
            let mentions = || document.entities[entity as usize].mentions.iter();
            if !mentions().any(|mention| chosen.contains(&mention.sentence)) {
                chosen.extend(mentions().map(|mention| mention.sentence).min());
            }
        }
        let chosen: Vec<u32> = chosen.into_iter().collect();
        if seen.insert(chosen.clone()) {
            all.push(cut(document, chosen));
        }
    }
    all
}

/// The sentences of a document, which rise.
fn cut(document: &TokenizedDocument, sentences: Vec<u32>) -> PseudoDocument {
    let mut words = Vec::new();
    let mut pieces = Vec::new();
    let (mut word_starts, mut sentence_starts) = (vec![0], vec![0]);
    // Where each kept sentence begins in the whole document and in the new one.
    let mut moved = Vec::with_capacity(sentences.len());
    for &sentence in &sentences {
        let span = &document.sentence_starts[sentence as usize..];
        let (first, last) = (span[0] as usize, span[1] as usize);
        moved.push((sentence, span[0], word_starts.len() as u32 - 1));
        words.extend(document.words.get(first..last).into_iter().flatten().cloned());
        for word in first..last {
            let own = document.word_starts[word] as usize..document.word_starts[word + 1] as usize;
            pieces.extend_from_slice(&document.pieces[own]);
            word_starts.push(pieces.len() as u32);
        }
        sentence_starts.push(word_starts.len() as u32 - 1);
    }
    let kept = |mention: &TokenizedMention| {
        let place =
            moved.binary_search_by_key(&mention.sentence, |&(sentence, ..)| sentence).ok()?;
        let (_, from, to) = moved[place];
        Some(TokenizedMention {
            sentence: place as u32,
            start: mention.start - from + to,
            end: mention.end - from + to,
            ..mention.clone()
        })
    };
    let (mut entities, mut numbers) = (Vec::new(), Vec::new());
    for (number, entity) in (0u32..).zip(&document.entities) {
        let mentions: Vec<TokenizedMention> = entity.mentions.iter().filter_map(kept).collect();
        if !mentions.is_empty() {
            numbers.push(number);
            entities.push(TokenizedEntity { entity_type: entity.entity_type.clone(), mentions });
        }
    }
    let new = |entity: u32| numbers.binary_search(&entity).ok().map(|number| number as u32);
    let candidate = |pair: &TokenizedCandidate| {
        Some(TokenizedCandidate { head: new(pair.head)?, tail: new(pair.tail)?, ..*pair })
    };
    let candidates = document.candidates.as_ref();
    let candidates = candidates.map(|pairs| pairs.iter().filter_map(candidate).collect());
    let title = document.title.clone();
    let document = TokenizedDocument {
        title,
        words,
        pieces,
        word_starts,
        sentence_starts,
        entities,
        candidates,
        ..TokenizedDocument::default()
    };
    PseudoDocument { document, entities: numbers, sentences }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three sentences of 2, 3 and 2 words; a word w has w % 3 pieces.
    fn document() -> TokenizedDocument {
        let mention = |sentence, start, end| TokenizedMention {
            sentence,
            start,
            end,
            ..TokenizedMention::default()
        };
        let entity = |kind: &str, mentions: Vec<TokenizedMention>| TokenizedEntity {
            entity_type: kind.into(),
            mentions,
        };
        let lengths = (0..7u32).map(|word| word % 3);
        let starts = lengths.scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        });
        TokenizedDocument {
            title: "t".into(),
            words: (0..7).map(|word| format!("w{word}")).collect(),
            pieces: (0..6).collect(),
            word_starts: std::iter::once(0).chain(starts).collect(),
            sentence_starts: vec![0, 2, 5, 7],
            entities: vec![
                entity("A", vec![mention(2, 5, 6), mention(0, 1, 2)]),
                entity("B", vec![mention(1, 2, 4)]),
                entity("C", vec![mention(2, 5, 7)]),
            ],
            candidates: Some(vec![
                TokenizedCandidate { head: 0, tail: 2, excluded: true },
                TokenizedCandidate { head: 1, tail: 2, excluded: false },
            ]),
            labelled: true,
            ..TokenizedDocument::default()
        }
    }

    #[test]
    fn sentences_become_a_document_with_what_they_mention() {
        let made = pseudo_documents(&document(), [((2, 0), vec![2])]);
        let [PseudoDocument { document: cut, entities, sentences }] = &made[..] else {
            panic!("{made:?}")
        };
        assert_eq!((&entities[..], &sentences[..]), (&[0, 2][..], &[2][..]));
        assert_eq!((&cut.pieces[..], &cut.word_starts[..]), (&[4, 5][..], &[0, 2, 2][..]));
        assert_eq!(
            (&cut.words[..], &cut.sentence_starts[..]),
            (&["w5", "w6"].map(String::from)[..], &[0, 2][..])
        );
        let spans = |entity: usize| {
            let mentions = cut.entities[entity].mentions.iter();
            mentions.map(|m| (m.sentence, m.start, m.end)).collect::<Vec<_>>()
        };
        assert_eq!((spans(0), spans(1)), (vec![(0, 0, 1)], vec![(0, 0, 2)]));
        let pair = TokenizedCandidate { head: 0, tail: 1, excluded: true };
        assert_eq!((cut.candidates.as_deref(), cut.labelled), (Some(&[pair][..]), false));
    }

    #[test]
    fn sets_are_completed_by_head_and_tail_and_made_once() {
        let evidence = vec![
            ((1, 0), vec![1]),    // the earliest mention of 0 is in sentence 0
            ((0, 1), vec![0, 1]), // the same set
            ((0, 2), vec![]),     // no evidence, no document
            ((2, 1), vec![0]),    // both are missing
            ((0, 2), vec![2]),
        ];
        let made = pseudo_documents(&document(), evidence);
        let sets: Vec<_> = made.iter().map(|made| made.sentences.clone()).collect();
        assert_eq!(sets, [vec![0, 1], vec![0, 1, 2], vec![2]]);
        assert_eq!(made[1].document.pieces, document().pieces);
    }
}
