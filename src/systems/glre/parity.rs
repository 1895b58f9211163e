//! The GLRE cases: DocRED and CDR configurations, the release's settings, and the paper's
//! ablations.
//!
//! The reference numbers entities by first appearance in its list of pairs; values do not depend on
//! it, so only what is compared is brought into that order. Pairs that are left out of the loss are
//! left out of the attention among pairs too, so they are given to the model only where its local
//! representations are compared.

use std::ops::Range;

use tch::Tensor;

use crate::Result;
use crate::corpus::RelationSet;
use crate::corpus::formats::read_eog;
use crate::parity::{Case, WEIGHTS, lengths};
use crate::systems::cases::foundation::{DIFFERENTIATED, DOCRED_TYPES, foundation};
use crate::systems::cases::head_name;
use crate::systems::cases::word_level::{bert, compare_outputs, example, losses, mean};
use crate::systems::glre::{
    ContextMatrix, Glre, GlreSettings, GlreStates, GlreTables, Query, RELATIONS, RgcnNorm,
    SentenceMean,
};
use crate::systems::{Example, Extractor, Pair, Profile, on, tables};
use crate::text::{SpecialPieces, TokenizedDocument, TokenizedEntity, Tokenizer, tokenize};

/// Types of CDR's arguments in the order of their numbers, from 1.
const CDR_TYPES: [&str; 2] = ["Chemical", "Disease"];

/// A document of the case with the reference's order of entities.
struct Sample {
    document: TokenizedDocument,
    /// Entity of each of the reference's nodes.
    order: Vec<u32>,
    /// All pairs in the reference's order.
    pairs: Vec<Pair>,
    /// Whether a pair is in the loss.
    kept: Vec<bool>,
}

impl Sample {
    fn kept_pairs(&self, kept: &[bool]) -> Vec<Pair> {
        let pairs = self.pairs.iter().zip(kept).filter(|(_, kept)| **kept);
        pairs.map(|(&pair, _)| pair).collect()
    }
}

/// A case that was read.
struct Setting {
    samples: Vec<Sample>,
    relations: usize,
    types: &'static [&'static str],
    pieces: SpecialPieces,
    cdr: bool,
}

/// Names of the reference's parameters, and ours.
fn rename(name: &str) -> Option<String> {
    name.strip_prefix("pretrain_lm.").map_or_else(|| head_name(name), |own| Some(own.to_owned()))
}

pub(crate) fn glre(case: &mut Case) -> Result<()> {
    let setting = read(case)?;
    let settings = settings(case, &setting)?;
    let model = build(case, &setting, settings.clone(), WEIGHTS)?;
    let all: Vec<Example> = examples(&setting, |sample| sample.pairs.clone());
    let laid = model.layout().tables(&all)?;
    let laid: &GlreTables = tables(&laid)?;
    compare_inputs(case, &setting, laid, &all, &model)?;
    compare_states(case, &setting, laid, &model.states(laid, DIFFERENTIATED)?)?;
    let kept = examples(&setting, |sample| sample.kept_pairs(&sample.kept));
    let laid = model.layout().tables(&kept)?;
    let states = model.states(tables(&laid)?, DIFFERENTIATED)?;
    compare_kept(case, &setting, &states)?;
    let losses = losses(&states.logits, &kept, model.classes())?;
    case.compare("loss", &mean(&losses)?)?;
    for (index, loss) in losses.iter().enumerate() {
        case.compare(&format!("doc{index}.loss"), loss)?;
    }
    mean(&losses)?.f_backward()?;
    case.compare_gradients("grad.", model.parameters(), rename)?;
    variants(case, &setting, &settings)
}

/// Visits of all documents with `pairs` of each.
fn examples(setting: &Setting, mut pairs: impl FnMut(&Sample) -> Vec<Pair>) -> Vec<Example> {
    let samples = setting.samples.iter().enumerate();
    samples.map(|(index, sample)| example(&sample.document, pairs(sample), index)).collect()
}

fn read(case: &Case) -> Result<Setting> {
    let cdr = case.text("dataset") == "cdr";
    let (samples, relations, tokenizer) = if cdr { read_cdr(case)? } else { read_docred(case)? };
    let types: &[&str] = if cdr { &CDR_TYPES } else { &DOCRED_TYPES };
    Ok(Setting { samples, relations, types, pieces: tokenizer.special().clone(), cdr })
}

fn read_docred(case: &Case) -> Result<(Vec<Sample>, usize, Tokenizer)> {
    let relations = case.relations()?;
    let (documents, tokenizer) = case.changed_documents(&relations, underscore_blanks)?;
    let samples = documents.into_iter().map(|document| {
        let order = release_order(&document);
        let pairs: Vec<Pair> = pairs_in(&order, |_, _| true);
        let kept = vec![true; pairs.len()];
        Sample { document, order, pairs, kept }
    });
    Ok((samples.collect(), relations.len(), tokenizer))
}

/// As the release reads DocRED: every blank in a word is written as an underscore, so that a word
/// of blanks has pieces. A no-break space is no blank; a word of these keeps no piece.
fn underscore_blanks(word: &mut String) {
    *word = word.replace(' ', "_");
}

/// All ordered pairs, row-major in the reference's order of entities.
fn pairs_in(order: &[u32], asked: impl Fn(u32, u32) -> bool) -> Vec<Pair> {
    let of_head = |&head: &u32| order.iter().map(move |&tail| (head, tail));
    order
        .iter()
        .flat_map(of_head)
        .filter(|&(head, tail)| head != tail && asked(head, tail))
        .collect()
}

/// Entities by first appearance: in labelled pairs, then in all pairs.
fn release_order(document: &TokenizedDocument) -> Vec<u32> {
    let mut order = Vec::new();
    let labelled = document.facts.iter().flat_map(|fact| [fact.head, fact.tail]);
    for entity in labelled.chain(0..document.entities.len() as u32) {
        if !order.contains(&entity) {
            order.push(entity);
        }
    }
    order
}

fn read_cdr(case: &Case) -> Result<(Vec<Sample>, usize, Tokenizer)> {
    let documents = read_eog(&case.path("docs.data"))?;
    let facts = documents.iter().flat_map(|read| read.document.facts());
    let mut relations = RelationSet::default();
    for name in facts.map(|fact| &fact.relation).collect::<std::collections::BTreeSet<_>>() {
        relations.insert(name, name);
    }
    let mut tokenizer = Tokenizer::load(&case.path("../vocab.txt"), Some(true))?;
    let mut samples = Vec::new();
    for (index, read) in documents.iter().enumerate() {
        let document = tokenize(&read.document, &mut tokenizer, &relations)?;
        let order: Vec<u32> = (0..document.entities.len() as u32).collect();
        let is = |entity: u32, kind: &str| document.entities[entity as usize].entity_type == kind;
        let pairs = pairs_in(&order, |head, tail| is(head, CDR_TYPES[0]) && is(tail, CDR_TYPES[1]));
        let left_out = |&(head, tail): &Pair| {
            let found = read
                .pairs
                .iter()
                .find(|pair| (pair.head, pair.tail) == (head as usize, tail as usize));
            found.is_none_or(|pair| pair.label == crate::corpus::PairLabel::NotIncluded)
        };
        let kept: Vec<bool> = pairs.iter().map(|pair| !left_out(pair)).collect();
        let (reference, _) = case.integers(&format!("doc{index}.pair_in_loss"))?;
        if reference != kept.iter().map(|&kept| i64::from(kept)).collect::<Vec<_>>() {
            return Err(case.error(format!("document {index}: other pairs are in the loss")));
        }
        samples.push(Sample { document, order, pairs, kept });
    }
    Ok((samples, relations.len(), tokenizer))
}

fn settings(case: &Case, setting: &Setting) -> Result<GlreSettings> {
    let dims = |key: &str| case.number(&format!("/dims/{key}"));
    let base = if setting.cdr {
        GlreSettings::cdr(Profile::Code)
    } else {
        GlreSettings::of(Profile::Code)
    };
    let flag =
        |key: &str, usual: bool| case.at(&format!("/switches/{key}")).as_bool().unwrap_or(usual);
    let word = |key: &str| case.at(&format!("/switches/{key}")).as_str().map(str::to_owned);
    let width = dims("d_n").or_else(|_| dims("d_n (lstm_dim=rgcn_hidden_dim)"))?;
    Ok(GlreSettings {
        width,
        type_width: dims("type_dim")?,
        distance_width: dims("dist_dim")?,
        heads: dims("att_heads")?,
        rgcn_layers: dims("rgcn_layers")? as usize,
        more_lstm: flag("more_lstm", base.more_lstm),
        global_rep: flag("global_rep", base.global_rep),
        local_rep: flag("local_rep", base.local_rep),
        context: flag("context_att", base.context),
        local_type_embedding: flag("local_kv_type_embedding", base.local_type_embedding),
        query: if word("query").as_deref() == Some("init") { Query::Init } else { base.query },
        rgcn_norm: if word("rgcn_norm").as_deref() == Some("per_relation") {
            RgcnNorm::PerRelation
        } else {
            base.rgcn_norm
        },
        context_matrix: if word("context_matrix").as_deref() == Some("full") {
            ContextMatrix::Full
        } else {
            base.context_matrix
        },
        classifier_width: dims("mlp_dim").unwrap_or(0),
        lstm_dropout: 0.0,
        rgcn_input_dropout: 0.0,
        rgcn_dropout: 0.0,
        attention_dropout: 0.0,
        classifier_dropout: 0.0,
        frozen_dropout: false,
        ..base
    })
}

fn build(case: &Case, setting: &Setting, settings: GlreSettings, files: &[&str]) -> Result<Glre> {
    let (spec, rows) = bert(case)?;
    let model = Glre::new(
        foundation(case.device(), &spec, rows, setting.relations, setting.types, &setting.pieces)?,
        settings,
    )?;
    case.load_weights(model.parameters(), files, rename)?;
    Ok(model)
}

/// The settings of a variant.
fn variant(case: &Case, name: &str, base: &GlreSettings) -> Result<GlreSettings> {
    let per_relation = GlreSettings { rgcn_norm: RgcnNorm::PerRelation, ..base.clone() };
    Ok(match name {
        "sent-true-mean" => GlreSettings { sentence_mean: SentenceMean::True, ..base.clone() },
        "rgcn-per-relation" => per_relation,
        "rgcn-per-relation-nobias" => GlreSettings { rgcn_bias: false, ..per_relation },
        "rgcn-per-relation-nobias-noself" => {
            GlreSettings { rgcn_bias: false, rgcn_self_loops: false, ..per_relation }
        }
        "paper-rgcn-fixed-mean" => {
            GlreSettings { rgcn_bias: false, sentence_mean: SentenceMean::True, ..per_relation }
        }
        "query-init" => GlreSettings { query: Query::Init, ..base.clone() },
        "no-global" => GlreSettings { global_rep: false, ..base.clone() },
        "no-local" => GlreSettings { local_rep: false, ..base.clone() },
        "no-context" => GlreSettings { context: false, ..base.clone() },
        "na-sampled" => base.clone(),
        other => return Err(case.error(format!("variant `{other}` is not known"))),
    })
}

fn variants(case: &mut Case, setting: &Setting, base: &GlreSettings) -> Result<()> {
    for name in case.keys("/variants") {
        let own = format!("weights.{name}.safetensors");
        let both = [WEIGHTS[0], &own];
        let files = if case.path(&own).exists() { &both[..] } else { WEIGHTS };
        let model = build(case, setting, variant(case, &name, base)?, files)?;
        let mut references = case.tensors(&format!("outputs.{name}.safetensors"))?;
        let mut kept: Vec<Vec<bool>> =
            setting.samples.iter().map(|sample| sample.kept.clone()).collect();
        for (index, kept) in kept.iter_mut().enumerate() {
            if let Some(chosen) = references.get(&format!("doc{index}.pair_kept")) {
                *kept = Vec::<i64>::try_from(chosen.f_to_kind(tch::Kind::Int64)?)?
                    .iter()
                    .map(|&keep| keep != 0)
                    .collect();
            }
            if let Some(logits) = references.get_mut(&format!("doc{index}.logits")) {
                *logits = logits.f_index_select(0, &Tensor::f_from_slice(&positions(kept))?)?;
            }
        }
        let mut rows = kept.iter();
        let examples =
            examples(setting, |sample| sample.kept_pairs(rows.next().unwrap_or(&sample.kept)));
        let laid = model.layout().tables(&examples)?;
        let laid: &GlreTables = tables(&laid)?;
        let states = model.states(laid, DIFFERENTIATED)?;
        let losses = losses(&states.logits, &examples, model.classes())?;
        let label = format!("{name}/");
        compare_outputs(case, &references, &label, &states.logits, &examples, &losses)?;
        for (index, sample) in setting.samples.iter().enumerate() {
            for (key, ours) in [
                ("sentence_nodes", nodes(laid, &states, index, sample)?[2].shallow_clone()),
                ("rgcn_output", graph(laid, &states.graph, index, sample)?),
            ] {
                if let Some(reference) = references.get(&format!("doc{index}.{key}")) {
                    case.compare_with(&format!("{label}doc{index}.{key}"), &ours, reference)?;
                }
            }
        }
    }
    Ok(())
}

fn positions(kept: &[bool]) -> Vec<i64> {
    (0..).zip(kept).filter(|(_, kept)| **kept).map(|(row, _)| row).collect()
}

/// Our mention of each of the reference's, whose order follows its entity nodes.
fn mention_order(sample: &Sample) -> Vec<i64> {
    let mut end = 0;
    let of_entity = |entity: &TokenizedEntity| {
        let start = end;
        end += entity.mentions.len() as i64;
        start..end
    };
    let mentions: Vec<Range<i64>> = sample.document.entities.iter().map(of_entity).collect();
    sample.order.iter().flat_map(|&entity| mentions[entity as usize].clone()).collect()
}

fn compare_inputs(
    case: &mut Case,
    setting: &Setting,
    laid: &GlreTables,
    examples: &[Example],
    model: &Glre,
) -> Result<()> {
    let words = &laid.words;
    for (index, (sample, example)) in setting.samples.iter().zip(examples).enumerate() {
        let name = |key: &str| format!("doc{index}.{key}");
        let (first, end) = (words.offsets[index] as usize, words.offsets[index + 1] as usize);
        let length = case.integers(&name("input_ids"))?.1[0] as usize;
        let padded = |values: &mut dyn Iterator<Item = i64>| {
            values.chain(std::iter::repeat(0)).take(length).collect::<Vec<_>>()
        };
        case.compare_input(
            &name("input_ids"),
            &padded(&mut words.ids[first..end].iter().copied()),
        )?;
        case.compare_input(&name("attention_mask"), &padded(&mut (first..end).map(|_| 1)))?;
        let rows = words.word_rows.as_deref().unwrap_or_default();
        let mine =
            &rows[words.word_offsets[index] as usize..words.word_offsets[index + 1] as usize];
        let starts: Vec<i64> = mine
            .iter()
            .filter(|&&row| row < words.ids.len() as i64)
            .map(|row| row - first as i64)
            .collect();
        case.compare_input(&name("word_start_positions"), &starts)?;
        let range =
            words.document_sentences[index] as usize..=words.document_sentences[index + 1] as usize;
        let sentences = lengths(&words.sentence_offsets[range]);
        case.compare_input(&name("sentence_lengths"), &sentences)?;
        if case.has_input(&name("entity_order")) {
            case.compare_input(
                &name("entity_order"),
                &sample.order.iter().map(|&entity| i64::from(entity)).collect::<Vec<_>>(),
            )?;
        }
        case.compare_input(&name("mentions"), &mention_rows(sample, setting.types))?;
        let mentions = laid.mention_offsets[index + 1] - laid.mention_offsets[index];
        case.compare_input(
            &name("section"),
            &[sample.order.len() as i64, mentions, sentences.len() as i64, mine.len() as i64],
        )?;
        case.compare_input(&name("adjacency"), &adjacency(laid, index, sample))?;
        compare_pairs(case, index, sample, laid, example, model)?;
    }
    Ok(())
}

/// Entity node, type of the first mention, start, end, sentence.
fn mention_rows(sample: &Sample, types: &[&str]) -> Vec<i64> {
    let rows = sample.order.iter().zip(0..).flat_map(|(&entity, node)| {
        let entity = &sample.document.entities[entity as usize];
        let kind = types
            .iter()
            .position(|&name| name == entity.entity_type)
            .map_or(0, |row| row as i64 + 1);
        entity
            .mentions
            .iter()
            .map(move |m| [node, kind, i64::from(m.start), i64::from(m.end), i64::from(m.sentence)])
    });
    rows.flatten().collect()
}

/// Our node of each of the reference's: entities, mentions, sentences.
fn node_order(laid: &GlreTables, index: usize, sample: &Sample) -> Vec<i64> {
    let words = &laid.words;
    let (entities, mentions) = (laid.entities.len() as i64, laid.mentions.len() as i64);
    let of_entities =
        sample.order.iter().map(|&entity| words.entity_offsets[index] + i64::from(entity));
    let of_mentions = mention_order(sample)
        .into_iter()
        .map(|mention| entities + laid.mention_offsets[index] + mention);
    let sentences = words.document_sentences[index]..words.document_sentences[index + 1];
    of_entities
        .chain(of_mentions)
        .chain(sentences.map(|sentence| entities + mentions + sentence))
        .collect()
}

fn adjacency(laid: &GlreTables, index: usize, sample: &Sample) -> Vec<i64> {
    let order = node_order(laid, index, sample);
    let place: std::collections::HashMap<i64, usize> =
        order.iter().enumerate().map(|(place, &node)| (node, place)).collect();
    let n = order.len();
    let mut matrix = vec![0; RELATIONS * n * n];
    for (row, &node) in order.iter().enumerate() {
        for (relation, list) in laid.neighbours[node as usize].iter().enumerate() {
            list.iter().for_each(|other| matrix[(relation * n + row) * n + place[other]] = 1);
        }
    }
    matrix
}

fn compare_pairs(
    case: &mut Case,
    index: usize,
    sample: &Sample,
    laid: &GlreTables,
    example: &Example,
    model: &Glre,
) -> Result<()> {
    let (n, classes) = (sample.order.len(), model.classes().count());
    let node = |entity: u32| sample.order.iter().position(|&other| other == entity).unwrap_or(0);
    let pairs: Vec<(usize, usize)> =
        example.pairs.iter().map(|&(head, tail)| (node(head), node(tail))).collect();
    let flat: Vec<i64> =
        pairs.iter().flat_map(|&(head, tail)| [head as i64, tail as i64]).collect();
    case.compare_input(&format!("doc{index}.pairs"), &flat)?;
    let first = laid.words.pair_offsets[index] as usize;
    let (reference_bins, _) = case.integers(&format!("doc{index}.distance_bins"))?;
    // Distances are computed for the pairs that are asked about.
    let (mut bins, mut labels) = (reference_bins.clone(), vec![0; n * n * classes]);
    let targets = model.classes().targets(&example.document, &example.pairs);
    for (row, (&(head, tail), kept)) in pairs.iter().zip(&sample.kept).enumerate() {
        bins[head * n + tail] = laid.words.bins[first + row];
        if *kept {
            let of_pair =
                targets[row * classes..(row + 1) * classes].iter().map(|&target| target as i64);
            labels[(head * n + tail) * classes..(head * n + tail + 1) * classes]
                .iter_mut()
                .zip(of_pair)
                .for_each(|(a, b)| *a = b);
        }
    }
    case.compare_integers(&format!("doc{index}.distance_bins"), &bins, &reference_bins);
    case.compare_input(&format!("doc{index}.relation_multi_label"), &labels)
}

/// Entity, mention and sentence nodes of a document in the reference's order.
fn nodes(
    laid: &GlreTables,
    states: &GlreStates,
    index: usize,
    sample: &Sample,
) -> Result<[Tensor; 3]> {
    let rows = graph(laid, &Tensor::f_cat(&states.nodes, 0)?, index, sample)?;
    let (first, second) = (sample.order.len() as i64, mention_order(sample).len() as i64);
    let part = |start: i64, end: i64| rows.f_slice(0, start, end, 1);
    Ok([part(0, first)?, part(first, first + second)?, part(first + second, rows.size()[0])?])
}

/// Rows of all nodes of a document in the reference's order.
fn graph(laid: &GlreTables, states: &Tensor, index: usize, sample: &Sample) -> Result<Tensor> {
    Ok(states.f_index_select(0, &on(&node_order(laid, index, sample), states.device())?)?)
}

/// What depends on all pairs, whether they are in the loss or not.
fn compare_states(
    case: &mut Case,
    setting: &Setting,
    laid: &GlreTables,
    states: &GlreStates,
) -> Result<()> {
    let words = &laid.words;
    let [heads, tails] = states.local.as_ref().map_or([None, None], |[h, t]| [Some(h), Some(t)]);
    for (name, ours, offsets) in [
        ("word_vectors", Some(&states.words).filter(|_| !setting.cdr), &words.word_offsets),
        ("lstm_output", states.read.as_ref(), &words.word_offsets),
        ("encoded_words", Some(&states.mapped), &words.word_offsets),
        ("local_h", heads, &words.pair_offsets),
        ("local_t", tails, &words.pair_offsets),
        ("pair_rep", Some(&states.pairs), &words.pair_offsets),
    ] {
        ours.map_or(Ok(()), |ours| case.compare_documents(name, ours, offsets))?;
    }
    for (index, sample) in setting.samples.iter().enumerate() {
        let name = |key: &str| format!("doc{index}.{key}");
        let (first, end) = (words.offsets[index], words.offsets[index + 1]);
        let pieces = states.pieces.f_narrow(0, first, end - first)?;
        let reference = case.output(&name("bert_last_hidden"))?.f_narrow(0, 0, end - first)?;
        case.compare_with(&name("bert_last_hidden"), &pieces, &reference)?;
        let kinds = ["entity_nodes", "mention_nodes", "sentence_nodes"];
        for (kind, ours) in kinds.into_iter().zip(nodes(laid, states, index, sample)?) {
            case.compare(&name(kind), &ours)?;
        }
        case.compare(&name("graph_nodes_input"), &graph(laid, &states.typed, index, sample)?)?;
        case.compare(&name("rgcn_output"), &graph(laid, &states.graph, index, sample)?)?;
    }
    Ok(())
}

/// What is computed for the pairs in the loss, beside the reference's rows of these.
fn compare_kept(case: &mut Case, setting: &Setting, states: &GlreStates) -> Result<()> {
    let mut first = 0;
    for (index, sample) in setting.samples.iter().enumerate() {
        let rows = positions(&sample.kept);
        let count = rows.len() as i64;
        let rows = Tensor::f_from_slice(&rows)?;
        let parts = [
            ("context_rep", states.context.as_ref()),
            ("mlp_hidden", states.hidden.as_ref()),
            ("logits", Some(&states.logits)),
        ];
        for (key, ours) in parts {
            let Some(ours) = ours else { continue };
            let name = format!("doc{index}.{key}");
            let reference = case.output(&name)?.f_index_select(0, &rows)?;
            case.compare_with(&name, &ours.f_narrow(0, first, count)?, &reference)?;
        }
        first += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::underscore_blanks;

    #[test]
    fn blanks_in_words_are_underscores_and_no_break_spaces_stay() {
        for (read, word) in
            [(" ", "_"), ("  ", "__"), ("New York", "New_York"), ("\u{a0}", "\u{a0}")]
        {
            let mut changed = read.to_owned();
            underscore_blanks(&mut changed);
            assert_eq!(changed, word);
        }
    }
}
