//! The documents of a self-test: generated ones that cover what models treat differently, or the
//! user's own.

use std::path::PathBuf;

use crate::corpus::formats::ReadOptions;
use crate::corpus::synth::sample_documents;
use crate::corpus::{Document, Entity, Format, Mention};
use crate::pipeline::model::DOCRED_TYPES;
use crate::text::Tokenizer;
use crate::{DataError, Error, Result};

/// Documents of one's own at most: everybody who checks the model waits for them.
const MOST_DOCUMENTS: usize = 50;

/// Entities of a generated document at most: an entity more is a row of pairs more.
const MOST_ENTITIES: usize = 8;

/// Windows of more pieces are not tried: reading two of them takes too long for a test.
const LONGEST_WINDOW: usize = 1024;

/// Which documents a self-test is made of.
#[derive(Clone, Debug)]
pub enum TestDocuments {
    /// Generated ones.
    Generated,
    /// Those of a file.
    Own(PathBuf, Format),
}

/// What the generated documents must know of a model.
pub struct ModelTraits<'a> {
    /// Its tokenizer.
    pub tokenizer: &'a mut Tokenizer,
    /// The types of entities that it knows.
    pub types: &'a [String],
    /// Pieces that its encoder reads in one go, where there is a limit.
    pub window: Option<usize>,
}

/// Documents of a file, without their labels.
///
/// # Errors
/// [`Error::Data`] for a file that cannot be read; [`Error::Recipe`] for one of too many documents.
pub fn own_documents(path: &PathBuf, format: Format) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    format.read(path, &ReadOptions::default(), &mut |document| {
        documents.push(Document { facts: None, ..document });
        if documents.len() > MOST_DOCUMENTS {
            let path = path.display();
            let problem = format!("{path}: a self-test has {MOST_DOCUMENTS} documents at most");
            return Err(Error::recipe(problem).with_hint("take a part of them"));
        }
        Ok(())
    })?;
    if documents.is_empty() {
        return Err(DataError::new(path, "holds no document for a self-test").into());
    }
    Ok(documents)
}

/// Generated documents: one sentence, several sentences with entities of several mentions and pairs
/// across sentences, and, where there is a window, a document that does not fit into it.
///
/// # Errors
/// If a document cannot be tokenized.
pub fn generated(model: &mut ModelTraits) -> Result<Vec<Document>> {
    let mut samples = sample_documents(4);
    for document in &mut samples {
        document.entities.truncate(MOST_ENTITIES);
    }
    let mut documents: Vec<Document> =
        samples.first().and_then(first_sentence).into_iter().collect();
    documents.extend(samples.iter().take(3).cloned());
    if let (Some(window), Some(last)) = (model.window, samples.last())
        && window <= LONGEST_WINDOW
    {
        documents.push(longer_than(window, last, model.tokenizer)?);
    }
    documents.push(smallest());
    for (number, document) in documents.iter_mut().enumerate() {
        document.title = format!("self-test {}", number + 1);
        retype(document, model.types);
    }
    Ok(documents)
}

/// The first sentence that names two entities, as a document.
fn first_sentence(document: &Document) -> Option<Document> {
    (0..document.sentences.len()).find_map(|sentence| {
        let here = |entity: &Entity| {
            let mut mentions = entity.mentions.clone();
            mentions.retain(|mention| mention.sentence == sentence);
            mentions.iter_mut().for_each(|mention| mention.sentence = 0);
            (!mentions.is_empty()).then(|| Entity { mentions, ..entity.clone() })
        };
        let entities: Vec<Entity> = document.entities.iter().filter_map(here).collect();
        let sentences = vec![document.sentences[sentence].clone()];
        (entities.len() > 1).then(|| Document { sentences, entities, ..document.clone() })
    })
}

/// A document that is told over and over until it has a quarter more pieces than the window. Its
/// entities are mentioned in the first and the last part.
fn longer_than(window: usize, document: &Document, tokenizer: &mut Tokenizer) -> Result<Document> {
    let mut pieces = 0;
    for word in document.sentences.iter().flatten() {
        pieces += tokenizer.tokenize_word(word)?.len();
    }
    let times = (window + window / 4).div_ceil(pieces.max(1)) + 1;
    let behind = (times - 1) * document.sentences.len();
    let again =
        |mention: &Mention| Mention { sentence: mention.sentence + behind, ..mention.clone() };
    let sentences = vec![document.sentences.as_slice(); times].concat();
    let mut long = Document { sentences, ..document.clone() };
    for entity in &mut long.entities {
        let later: Vec<Mention> = entity.mentions.iter().map(again).collect();
        entity.mentions.extend(later);
    }
    Ok(long)
}

/// Two entities in four words, which fit into any model.
fn smallest() -> Document {
    let mention = |name: &str, start| Mention {
        name: name.to_owned(),
        start,
        end: start + 1,
        entity_type: "PER".to_owned(),
        ..Mention::default()
    };
    let entity = |mention| Entity { mentions: vec![mention], ..Entity::default() };
    let words = ["Ada", "met", "Charles", "."].map(str::to_owned);
    Document {
        sentences: vec![words.into()],
        entities: vec![entity(mention("Ada", 0)), entity(mention("Charles", 2))],
        ..Document::default()
    }
}

/// Gives entities, in turn, the types that the model knows beside those of the generated documents:
/// it may look at pairs of them alone.
fn retype(document: &mut Document, types: &[String]) {
    let own: Vec<&String> =
        types.iter().filter(|name| !DOCRED_TYPES.contains(&name.as_str())).collect();
    if own.is_empty() {
        return;
    }
    for (number, entity) in document.entities.iter_mut().enumerate() {
        for mention in &mut entity.mentions {
            mention.entity_type.clone_from(own[number % own.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_documents_cover_what_models_treat_differently() {
        let folder = tempfile::tempdir().unwrap();
        let vocabulary = folder.path().join("vocab.txt");
        fs_err::write(&vocabulary, "[PAD]\n[UNK]\n[CLS]\n[SEP]\nparis\n").unwrap();
        let mut tokenizer = Tokenizer::load(&vocabulary, None).unwrap();
        let types = ["PER", "CHEM"].map(str::to_owned);
        let mut model = ModelTraits { tokenizer: &mut tokenizer, types: &types, window: Some(100) };
        let documents = generated(&mut model).unwrap();
        assert_eq!(documents[0].sentences.len(), 1);
        assert!(documents[0].entities.len() > 1);
        let several = |document: &Document| {
            document.entities.iter().any(|entity| entity.mentions.len() > 1)
                && !document.share_sentence(0, document.entities.len() - 1)
        };
        assert!(documents[1..4].iter().any(several));
        let long = &documents[4];
        assert!(long.num_words() > 125, "{}", long.num_words());
        assert!(long.entities.iter().all(|entity| entity.mentions.len() > 1));
        assert_eq!(documents[5].num_words(), 4);
        for document in &documents {
            assert!(document.entities.len() <= MOST_ENTITIES && document.facts.is_none());
            assert!(document.entities.iter().all(|entity| entity.entity_type() == "CHEM"));
        }
        model.window = Some(8192);
        assert_eq!(generated(&mut model).unwrap().len(), 5);
    }
}
