//! BERT-RE: one document a batch, NA pairs as the reference drew them.

use std::collections::HashMap;
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::Result;
use crate::parity::{Case, WEIGHTS};
use crate::systems::baselines::{Baseline, BaselineSettings, Network};
use crate::systems::cases::foundation::EVALUATION;
use crate::systems::cases::words::{WordCase, batch_loss, dense_averages};
use crate::systems::words::WordTables;
use crate::systems::{Example, Extractor, Pair, Profile, RelationBatch, tables};
use crate::text::TokenizedDocument;

/// Our name of a parameter.
fn rename(name: &str) -> Option<String> {
    Some(name.strip_prefix("bert.").map_or_else(|| format!("heads.{name}"), str::to_owned))
}

fn settings(case: &Case) -> Result<BaselineSettings> {
    let dims = |key: &str| case.number(&format!("/dims/{key}"));
    Ok(BaselineSettings {
        hidden: dims("linear")?,
        distance_width: dims("dis")?,
        ..BaselineSettings::of(Network::Linear, Profile::Code)
    })
}

/// Compares the case; its loss is the mean of the documents' losses.
pub(crate) fn bert_re(case: &mut Case) -> Result<()> {
    let words = WordCase::open_pieces(case)?;
    let model = Baseline::new(words.bert(case)?, &settings(case)?)?;
    case.load_weights(model.parameters(), WEIGHTS, rename)?;
    let documents = words.ordered(case, &case.stated::<Vec<_>>("/documents")?)?;
    let mut losses = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        losses.push(compare_document(case, &model, document, &format!("doc{index}."))?);
    }
    let loss = Tensor::f_stack(&losses, 0)?.f_mean(Kind::Float)?;
    case.compare("loss", &loss)?;
    loss.f_backward()?;
    case.compare_gradients("grad.", model.parameters(), rename)
}

/// The reference's pairs: the labelled ones must be ours, the NA pairs behind them were drawn;
/// their number must be ours.
fn pairs(
    case: &mut Case,
    model: &Baseline,
    document: &TokenizedDocument,
    prefix: &str,
) -> Result<Vec<Pair>> {
    let (flat, _) = case.integers(&format!("{prefix}pairs"))?;
    let reference: Vec<Pair> =
        flat.chunks_exact(2).map(|pair| (pair[0] as u32, pair[1] as u32)).collect();
    let ours = model.layout().training_pairs(document, 0, 0, 0)?;
    let labelled = |pair: &Pair| document.facts.iter().any(|fact| (fact.head, fact.tail) == *pair);
    let wide = |pairs: &[Pair]| {
        pairs.iter().flat_map(|pair| [i64::from(pair.0), i64::from(pair.1)]).collect::<Vec<_>>()
    };
    let positives = ours.iter().filter(|pair| labelled(pair)).count().min(reference.len());
    case.compare_integers(
        &format!("{prefix}pairs (labelled)"),
        &wide(&ours[..positives]),
        &wide(&reference[..positives]),
    );
    case.compare_integers(
        &format!("{prefix}pairs (number)"),
        &[ours.len() as i64],
        &[reference.len() as i64],
    );
    Ok(reference)
}

fn compare_document(
    case: &mut Case,
    model: &Baseline,
    document: &Arc<TokenizedDocument>,
    prefix: &str,
) -> Result<Tensor> {
    let pairs = pairs(case, model, document, prefix)?;
    let example = Example { document: Arc::clone(document), pairs, visit: 0, train: true };
    let batch = RelationBatch::new(&*model.layout(), &[example], model.classes(), model.loss())?;
    let laid: &WordTables = tables(&batch.tables)?;
    compare_inputs(case, laid, &batch, prefix)?;
    let mut seen = HashMap::new();
    let logits = model.probed(laid, EVALUATION, &mut |name, tensor| {
        seen.insert(name, tensor.shallow_clone());
    })?;
    for name in ["bert_last_hidden", "word_vectors", "context_output"] {
        if let Some(ours) = seen.get(name) {
            compare_words(case, &format!("{prefix}{name}"), ours)?;
        }
    }
    if let Some(entities) = seen.get("entities") {
        let (heads, tails) = model.pair_sides(entities, laid)?;
        case.compare(&format!("{prefix}s_rep"), &heads)?;
        case.compare(&format!("{prefix}t_rep"), &tails)?;
    }
    case.compare(&format!("{prefix}logits"), &logits)?;
    let loss = batch_loss(model, &batch, EVALUATION)?;
    case.compare(&format!("{prefix}loss"), &loss)?;
    Ok(loss)
}

/// The reference fills words up to the number of pieces.
fn compare_words(case: &mut Case, name: &str, ours: &Tensor) -> Result<()> {
    let reference = case.output(name)?.shallow_clone();
    let rows = ours.size()[0].min(reference.size()[0]);
    case.compare_with(name, &ours.f_narrow(0, 0, rows)?, &reference.f_narrow(0, 0, rows)?)
}

fn compare_inputs(
    case: &mut Case,
    laid: &WordTables,
    batch: &RelationBatch,
    prefix: &str,
) -> Result<()> {
    let name = |input: &str| format!("{prefix}{input}");
    case.compare_input(&name("input_ids"), &laid.ids)?;
    let pieces = laid.ids.len() as i64;
    let starts: Vec<i64> =
        laid.word_rows.iter().flatten().copied().filter(|&row| row < pieces).collect();
    case.compare_input(&name("word_start_positions"), &starts)?;
    let reference = case.input(&name("entity_mapping"))?;
    let (slots, width) = reference.size2()?;
    let dense = dense_averages(laid, slots as usize, width as usize);
    case.compare_with(&name("entity_mapping"), &Tensor::f_from_slice(&dense)?, &reference)?;
    case.compare_input(&name("ht_pair_pos"), &laid.bins)?;
    let targets = Tensor::f_from_slice(&batch.targets)?;
    let reference = case.input(&name("relation_multi_label"))?;
    case.compare_with(&name("relation_multi_label"), &targets, &reference)
}
