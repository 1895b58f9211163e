//! The HIN case: the full model and the ablations of the paper.

use std::collections::HashMap;

use serde_json::json;
use tch::Tensor;

use crate::Result;
use crate::encoders::EncoderSpec;
use crate::parity::{Case, WEIGHTS, lengths};
use crate::sampling::ordered_pairs;
use crate::systems::cases::foundation::{DIFFERENTIATED, DOCRED_TYPES, foundation};
use crate::systems::cases::head_name;
use crate::systems::cases::word_level::{compare_outputs, example, losses, mean};
use crate::systems::hin::{Hin, HinSettings, HinStates, HinTables};
use crate::systems::{BertMode, Example, Extractor, tables};
use crate::text::{SpecialPieces, TokenizedDocument};

/// Names of the reference's parameters, and ours.
fn rename(name: &str) -> Option<String> {
    if name == "word_emb.weight" {
        return Some(name.to_owned());
    }
    let own = name
        .replace(".lstm.", ".rnns.0.")
        .replace(".init_h", ".init_hidden.0")
        .replace(".init_c", ".init_c.0");
    head_name(&own)
}

/// The settings of the case, with the settings found at `settings`.
fn settings(case: &Case, settings: &str) -> Result<HinSettings> {
    let dims = |key: &str| case.number(&format!("/dims/{key}"));
    let switch = |key: &str| {
        case.at(&format!("{settings}/{key}"))
            .as_bool()
            .ok_or_else(|| case.error(format!("no switch `{key}`")))
    };
    let coreference = case.at("/parameters/coref_emb.weight/0").as_i64();
    Ok(HinSettings {
        bert_mode: BertMode::Frozen,
        type_width: dims("type")?,
        coreference_width: dims("coref")?,
        coreference_rows: coreference.unwrap_or(512),
        distance_width: dims("distance")?,
        lstm_hidden: dims("lstm_hidden_per_direction")?,
        project: dims("d")? == dims("lstm_hidden_per_direction")?,
        spaces: dims("spaces_K")? as usize,
        space_width: Some(dims("space_width_k")?),
        translation: switch("translation")?,
        bilinear: switch("bilinear")?,
        multi_space: switch("multi_space")?,
        sentence_inference: switch("sentence_inference")?,
        hierarchy: switch("hierarchy")?,
        dropout: 0.0,
        ..HinSettings::default()
    })
}

/// The model with the weights of `files`.
fn model(
    case: &Case,
    settings: &HinSettings,
    files: &[&str],
    relations: usize,
    pieces: &SpecialPieces,
) -> Result<Hin> {
    let vectors = case.tensors("weights.safetensors")?;
    let words = vectors
        .get("word_emb.weight")
        .ok_or_else(|| case.error("there are no word vectors"))?
        .size();
    let spec =
        EncoderSpec::preset("words", json!({ "embedding_size": words[1], "frozen_vectors": true }));
    let na_class = case.number("/dims/classes")? == relations as i64 + 1;
    let model = Hin::new(
        foundation(case.device(), &spec, words[0], relations, &DOCRED_TYPES, pieces)?,
        HinSettings { na_class, ..settings.clone() },
    )?;
    case.load_weights(model.parameters(), files, rename)?;
    Ok(model)
}

pub(crate) fn hin(case: &mut Case) -> Result<()> {
    let relations = case.relations()?;
    let (documents, tokenizer) = case.word_documents(&relations)?;
    let pairs = |document: &TokenizedDocument| ordered_pairs(document.entities.len()).collect();
    let examples: Vec<Example> = documents
        .iter()
        .enumerate()
        .map(|(index, document)| example(document, pairs(document), index))
        .collect();
    let full =
        model(case, &settings(case, "/switches")?, WEIGHTS, relations.len(), tokenizer.special())?;
    let laid = full.layout().tables(&examples)?;
    let laid: &HinTables = tables(&laid)?;
    compare_inputs(case, laid, &examples, &full)?;
    let states = full.states(laid, DIFFERENTIATED)?;
    compare_states(case, laid, &states)?;
    let losses = losses(&states.logits, &examples, full.classes())?;
    let references = case.tensors("outputs.safetensors")?;
    compare_outputs(case, &references, "", &states.logits, &examples, &losses)?;
    mean(&losses)?.f_backward()?;
    case.compare_gradients("grad.", full.parameters(), rename)?;
    ablations(case, &examples, relations.len(), tokenizer.special())
}

fn ablations(
    case: &mut Case,
    examples: &[Example],
    relations: usize,
    pieces: &SpecialPieces,
) -> Result<()> {
    for name in case.keys("/ablations") {
        let settings = settings(case, &format!("/ablations/{name}/switches"))?;
        let own = format!("weights.{name}.safetensors");
        let model = model(case, &settings, &[WEIGHTS[0], &own], relations, pieces)?;
        let laid = model.layout().tables(examples)?;
        let logits = model.states(tables(&laid)?, DIFFERENTIATED)?.logits;
        let losses = losses(&logits, examples, model.classes())?;
        let references: HashMap<String, Tensor> =
            case.tensors(&format!("outputs.{name}.safetensors"))?;
        compare_outputs(case, &references, &format!("{name}/"), &logits, examples, &losses)?;
    }
    Ok(())
}

/// Part of a table that belongs to document `index`.
fn part<'a>(values: &'a [i64], offsets: &[i64], index: usize) -> &'a [i64] {
    &values[offsets[index] as usize..offsets[index + 1] as usize]
}

fn compare_inputs(
    case: &mut Case,
    laid: &HinTables,
    examples: &[Example],
    model: &Hin,
) -> Result<()> {
    let words = &laid.words;
    for (index, example) in examples.iter().enumerate() {
        let name = |key: &str| format!("doc{index}.{key}");
        let document = &example.document;
        case.compare_input(&name("words"), part(&words.ids, &words.word_offsets, index))?;
        case.compare_input(&name("types"), part(&words.types, &words.word_offsets, index))?;
        case.compare_input(&name("coref"), part(&words.coref, &words.word_offsets, index))?;
        let range =
            words.document_sentences[index] as usize..=words.document_sentences[index + 1] as usize;
        case.compare_input(&name("sent_lens"), &lengths(&words.sentence_offsets[range]))?;
        let mentions = document
            .entities
            .iter()
            .enumerate()
            .flat_map(|(entity, found)| found.mentions.iter().map(move |m| (entity, m)));
        let mentions: Vec<i64> = mentions
            .flat_map(|(entity, m)| [entity as i64, i64::from(m.start), i64::from(m.end)])
            .collect();
        case.compare_input(&name("mentions"), &mentions)?;
        case.compare_input(
            &name("num_entities"),
            &[words.entity_offsets[index + 1] - words.entity_offsets[index]],
        )?;
        let base = words.entity_offsets[index];
        let (heads, tails) = (
            part(&words.heads, &words.pair_offsets, index),
            part(&words.tails, &words.pair_offsets, index),
        );
        let pairs: Vec<i64> =
            heads.iter().zip(tails).flat_map(|(head, tail)| [head - base, tail - base]).collect();
        case.compare_input(&name("pairs"), &pairs)?;
        case.compare_input(&name("bins"), part(&words.bins, &words.pair_offsets, index))?;
        let targets: Vec<i64> = model
            .classes()
            .targets(document, &example.pairs)
            .iter()
            .map(|&target| target as i64)
            .collect();
        case.compare_input(&name("labels"), &targets)?;
    }
    Ok(())
}

fn compare_states(case: &mut Case, laid: &HinTables, states: &HinStates) -> Result<()> {
    let words = &laid.words;
    case.compare_documents("x", &states.inputs, &words.word_offsets)?;
    case.compare_documents("h_entity", &states.words, &words.word_offsets)?;
    case.compare_documents("entities", &states.entities, &words.entity_offsets)?;
    for (space, projected) in states.entity_level.spaces.iter().enumerate() {
        case.compare_documents(&format!("entity_space.{space}"), projected, &words.entity_offsets)?;
    }
    for (space, term) in states.entity_level.biaffine.iter().enumerate() {
        case.compare_documents(&format!("biaffine.{space}"), term, &words.pair_offsets)?;
    }
    case.compare_documents("I_e", &states.entity_level.pairs, &words.pair_offsets)?;
    case.compare_documents("I_d", &states.documents, &words.pair_offsets)?;
    let Some(level) = &states.sentence_level else { return Ok(()) };
    case.compare_documents("sentences", &level.sentences, &words.document_sentences)?;
    case.compare_documents("word_attention", &level.word_attention, &words.word_offsets)?;
    case.compare_documents("I_s", &level.inferred, &laid.row_offsets)?;
    case.compare_documents("sentence_attention", &level.sentence_attention, &laid.row_offsets)
}
