//! DocRED's baselines: CNN, LSTM, BiLSTM, ContextAware.

use std::collections::HashMap;
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::Result;
use crate::parity::{Case, WEIGHTS, lengths, padded, unpadded};
use crate::systems::baselines::{Baseline, BaselineSettings, Network};
use crate::systems::cases::foundation::DIFFERENTIATED;
use crate::systems::cases::words::{WordCase, batch_loss, dense_averages};
use crate::systems::words::WordTables;
use crate::systems::{Extractor, Profile, RelationBatch, tables};
use crate::text::TokenizedDocument;

/// Our name of a parameter; `None` for the one whose gradient is zero, which we leave out.
fn rename(name: &str) -> Option<String> {
    match name {
        "word_emb.weight" => Some(name.to_owned()),
        "self_att.input_linear.weight" => None,
        _ => Some(format!("heads.{}", name.replace("entity_embed.", "coref_embed."))),
    }
}

fn settings(case: &Case, network: Network, profile: Profile) -> Result<BaselineSettings> {
    let dims = |key: &str| case.number(&format!("/dims/{key}"));
    Ok(BaselineSettings {
        coref_width: dims("coref")?,
        type_width: dims("ner")?,
        distance_width: dims("dis")?,
        hidden: dims("H")?,
        channels: dims("C")?,
        cnn_dropout: 0.0,
        locked_dropout: 0.0,
        ..BaselineSettings::of(network, profile)
    })
}

/// Compares one baseline.
pub(crate) fn baseline(case: &mut Case, network: Network) -> Result<()> {
    let words = WordCase::open(case)?;
    let model = build(case, &words, network, Profile::Code)?;
    let documents = words.ordered(case, &case.stated::<Vec<_>>("/batch_order")?)?;
    let layout = model.layout();
    let examples = documents
        .iter()
        .map(|document| words.example(&*layout, document))
        .collect::<Result<Vec<_>>>()?;
    let batch = RelationBatch::new(&*layout, &examples, model.classes(), model.loss())?;
    let laid: &WordTables = tables(&batch.tables)?;
    compare_inputs(case, laid, &batch, &documents)?;
    let mut seen = HashMap::new();
    let logits = model.probed(laid, DIFFERENTIATED, &mut |name, tensor| {
        seen.insert(name, tensor.shallow_clone());
    })?;
    compare_outputs(case, laid, &model, &seen, &logits)?;
    let loss = batch_loss(&model, &batch, DIFFERENTIATED)?;
    case.compare("loss", &loss)?;
    loss.f_backward()?;
    case.compare_gradients("grad.", model.parameters(), rename)?;
    compare_alone(case, &words, network, &documents)
}

fn build(case: &Case, words: &WordCase, network: Network, profile: Profile) -> Result<Baseline> {
    let model = Baseline::new(
        words.table(case.number("/dims/word")?)?,
        &settings(case, network, profile)?,
    )?;
    case.load_weights(model.parameters(), WEIGHTS, rename)?;
    Ok(model)
}

fn compare_inputs(
    case: &mut Case,
    laid: &WordTables,
    batch: &RelationBatch,
    documents: &[Arc<TokenizedDocument>],
) -> Result<()> {
    let (_, shape) = case.integers("context_idxs")?;
    let (count, width) = (shape[0] as usize, shape[1] as usize);
    for (name, values) in
        [("context_idxs", &laid.ids), ("context_pos", &laid.coref), ("context_ner", &laid.types)]
    {
        case.compare_input(name, &padded(values, &laid.word_offsets, width))?;
    }
    let words = documents.iter().map(|document| document.num_words().min(width) as i64);
    case.compare_input("input_lengths", &words.collect::<Vec<_>>())?;
    case.compare_input("num_entities", &lengths(&laid.entity_offsets))?;
    let reference = case.input("entity_mapping")?;
    let (_, slots, width) = reference.size3()?;
    let dense = dense_averages(laid, slots as usize, width as usize);
    case.compare_with("entity_mapping", &Tensor::f_from_slice(&dense)?, &reference)?;
    compare_pairs(case, laid, batch, count)
}

fn compare_pairs(
    case: &mut Case,
    laid: &WordTables,
    batch: &RelationBatch,
    count: usize,
) -> Result<()> {
    let slots = case.integers("ht_pair_pos")?.1[1] as usize;
    let spread = |values: &[i64], fill: i64| -> Vec<i64> {
        let mut rows = vec![fill; count * slots];
        for (document, span) in laid.pair_offsets.windows(2).enumerate() {
            let from = &values[span[0] as usize..span[1] as usize];
            rows[document * slots..][..from.len()].copy_from_slice(from);
        }
        rows
    };
    let local = |rows: &[i64]| -> Vec<i64> {
        let spans = laid.pair_offsets.windows(2).zip(&laid.entity_offsets);
        spans
            .flat_map(|(span, base)| {
                rows[span[0] as usize..span[1] as usize].iter().map(move |row| row - base)
            })
            .collect()
    };
    let (heads, tails) = (spread(&local(&laid.heads), -1), spread(&local(&laid.tails), -1));
    let pairs: Vec<i64> =
        heads.iter().zip(&tails).flat_map(|(&head, &tail)| [head, tail]).collect();
    case.compare_input("pairs", &pairs)?;
    let mask = spread(&vec![1; laid.pairs()], 0);
    case.compare_input("pair_mask", &mask)?;
    case.compare_input("ht_pair_pos", &spread(&laid.bins, 0))?;
    let classes = batch.targets.len() / batch.pairs.max(1);
    let targets = Tensor::f_from_slice(&batch.targets)?.f_view([-1, classes as i64])?;
    let reference = unpadded(&case.input("relation_multi_label")?, &lengths(&laid.pair_offsets))?;
    case.compare_with("relation_multi_label", &targets, &reference)
}

fn compare_outputs(
    case: &mut Case,
    laid: &WordTables,
    model: &Baseline,
    seen: &HashMap<&str, Tensor>,
    logits: &Tensor,
) -> Result<()> {
    let (words, counts) = (lengths(&laid.word_offsets), lengths(&laid.pair_offsets));
    for name in [
        "conv1_raw",
        "layer1_output",
        "layer2_output",
        "layer3_output",
        "lstm_output",
        "context_output",
    ] {
        if let Some(ours) = seen.get(name).filter(|_| case.output(name).is_ok()) {
            case.compare_rows(name, ours, &words)?;
        }
    }
    if let Some(entities) = seen.get("entities") {
        let (heads, tails) = model.pair_sides(entities, laid)?;
        case.compare_rows("s_rep", &heads, &counts)?;
        case.compare_rows("t_rep", &tails, &counts)?;
    }
    for name in ["bilinear_output", "self_att_output"] {
        if let Some(ours) = seen.get(name) {
            case.compare_rows(name, ours, &counts)?;
        }
    }
    case.compare_rows("logits", logits, &counts)
}

/// Every document alone: where the release's batch matters the case gives the logits without
/// padding, elsewhere those of the batch hold.
fn compare_alone(
    case: &mut Case,
    words: &WordCase,
    network: Network,
    documents: &[Arc<TokenizedDocument>],
) -> Result<()> {
    let model = build(case, words, network, Profile::Code)?;
    let layout = model.layout();
    let _guard = tch::no_grad_guard();
    for (index, document) in documents.iter().enumerate() {
        let batch = RelationBatch::new(
            &*layout,
            &[words.example(&*layout, document)?],
            model.classes(),
            model.loss(),
        )?;
        let logits = model.logits(&batch, DIFFERENTIATED)?.f_to_kind(Kind::Float)?;
        let name = format!("single.logits.{index}");
        let reference = match case.output(&name) {
            Ok(alone) => alone.shallow_clone(),
            Err(_) => {
                case.output("logits")?.f_get(index as i64)?.f_narrow(0, 0, batch.pairs as i64)?
            }
        };
        case.compare_with(&name, &logits, &reference)?;
    }
    Ok(())
}
