//! GLRE on small documents: the graph, independence of the batch, gradients, settings, learning.

use super::graph::DocumentNodes;
use super::*;
use crate::systems::testing::plain::{Plain, Row, assert_close, attend, dot, numbers, rows};
use crate::systems::testing::{
    EVALUATION, RELATIONS as CLASSES, TRAINING, assert_logits_batch_invariant, batch, documents,
    examples, foundation, remaining_loss, untouched,
};
use crate::systems::words::Reading;
use crate::systems::{BertMode, Extractor, Profile, tables};

fn small() -> GlreSettings {
    GlreSettings {
        width: 8,
        type_width: 3,
        distance_width: 4,
        classifier_width: 10,
        unknown_singletons: 0.0,
        attention_dropout: 0.1,
        ..GlreSettings::of(Profile::Fixed)
    }
}

/// Every switch once.
fn variants() -> Vec<GlreSettings> {
    let paper = GlreSettings {
        context_matrix: ContextMatrix::Full,
        local_type_embedding: true,
        local_bias: false,
        rgcn_norm: RgcnNorm::PerRelation,
        ..small()
    };
    vec![
        small(),
        GlreSettings { rgcn_bias: false, rgcn_self_loops: false, ..paper },
        GlreSettings { query: Query::Init, more_lstm: true, ..small() },
        GlreSettings { global_rep: false, ..small() },
        GlreSettings { local_rep: false, ..small() },
        GlreSettings { context: false, ..small() },
        GlreSettings {
            context_pairs: ContextPairs::Kept,
            sentence_mean: SentenceMean::Longest,
            classifier_width: 0,
            ..small()
        },
        GlreSettings { rgcn_layers: 3, pair_types: Some(("ORG".into(), "PER".into())), ..small() },
    ]
}

#[test]
fn the_graph_of_a_small_document() {
    // Two entities; mentions: a in sentence 0, a in sentence 1, b in sentence 1. Nodes: a, b, three
    // mentions, two sentences.
    let nodes = DocumentNodes {
        entities: (0, 2),
        mentions: vec![(0, 0), (0, 1), (1, 1)],
        first_mention: 2,
        sentences: (5, 2),
    };
    let none: Vec<i64> = Vec::new();
    let neighbours = nodes.neighbours(true);
    assert_eq!(neighbours[0], [none.clone(), vec![2, 3], none.clone(), none.clone(), vec![5, 6]]);
    assert_eq!(neighbours[3], [vec![3, 4], vec![0], none.clone(), vec![6], none.clone()]);
    assert_eq!(neighbours[6], [none.clone(), none.clone(), vec![5, 6], vec![3, 4], vec![0, 1]]);
    let without = nodes.neighbours(false);
    assert_eq!(
        (&without[3][0][..], &without[2][0][..], &without[6][2][..]),
        (&[4][..], &none[..], &[5][..])
    );
}

#[test]
fn a_document_does_not_notice_its_batch() {
    for settings in variants() {
        for bert in [false, true] {
            let model = Glre::new(foundation(bert), settings.clone()).unwrap();
            for forward in [EVALUATION, TRAINING] {
                assert_logits_batch_invariant(&model, forward);
            }
        }
    }
}

#[test]
fn gradients_reach_every_parameter() {
    for settings in variants() {
        let model = Glre::new(foundation(false), GlreSettings { na_keep: 1.0, ..settings.clone() })
            .unwrap();
        let mut left = untouched(&model);
        // Without global representations nobody reads the graph where queries are initial vectors.
        left.retain(|name| {
            settings.global_rep || settings.query == Query::Global || !name.contains("rgcn_layer")
        });
        // Only entities are read from the last layer, and these are neighbours by relations 1 and 4
        // alone.
        let last = settings.rgcn_layers - 1;
        let unread = [0, 2, 3].map(|relation| format!("heads.rgcn_layer.W_r.{relation}.{last}."));
        left.retain(|name| !unread.iter().any(|prefix| name.starts_with(prefix)));
        // A softmax does not notice what is added to all its scores, so the bias of keys has no
        // gradient but rounding.
        left.retain(|name| !name.ends_with("linear_k.bias"));
        assert_eq!(left, Vec::<String>::new(), "{settings:?}");
    }
}

#[test]
fn a_frozen_encoder_is_not_trained() {
    let settings = GlreSettings { bert_mode: BertMode::Frozen, ..small() };
    let model = Glre::new(foundation(true), settings.clone()).unwrap();
    assert!(model.parameters().trainable().all(|parameter| parameter.name.starts_with("heads.")));
    // Its dropout stays on where asked, as with a learning rate of 0.
    let logits = |settings: GlreSettings| {
        let still = GlreSettings {
            rgcn_input_dropout: 0.0,
            rgcn_dropout: 0.0,
            attention_dropout: 0.0,
            classifier_dropout: 0.0,
            ..settings
        };
        let model = Glre::new(foundation(true), still).unwrap();
        let batch = batch(&model, &examples(&model, &documents(), false));
        let difference =
            model.logits(&batch, TRAINING).unwrap() - model.logits(&batch, EVALUATION).unwrap();
        difference.abs().max().double_value(&[])
    };
    assert!(logits(settings.clone()) > 0.0);
    assert_eq!(logits(GlreSettings { frozen_dropout: false, ..settings }), 0.0);
}

#[test]
fn pairs_without_a_relation_are_sampled_and_labelled_ones_kept() {
    let document = &documents()[0];
    let kept = |settings: GlreSettings, epoch: u64| {
        Glre::new(foundation(false), settings)
            .unwrap()
            .layout()
            .training_pairs(document, 1, epoch, 7)
            .unwrap()
    };
    let mut negatives = 0;
    for epoch in 0..400 {
        let pairs = kept(small(), epoch);
        assert!(document.facts.iter().all(|fact| pairs.contains(&(fact.head, fact.tail))));
        negatives += pairs.len() - 3;
    }
    // 9 negatives, kept with probability 1/2: 1,800 ± 30 over 400 visits.
    assert!((1650..1950).contains(&negatives), "{negatives}");
    assert_eq!(kept(GlreSettings { na_keep: 1.0, ..small() }, 1).len(), 12);
    let typed =
        GlreSettings { na_keep: 0.0, pair_types: Some(("ORG".into(), "PER".into())), ..small() };
    assert_eq!(kept(typed.clone(), 1), [(2, 0)]);
    let asked =
        Glre::new(foundation(false), typed).unwrap().layout().evaluation_pairs(document).unwrap();
    assert_eq!(asked, [(1, 0), (1, 3), (2, 0), (2, 3)]);
}

#[test]
fn kept_pairs_see_all_pairs_or_only_each_other() {
    // Without dropout, logits in training equal those in evaluation exactly where all pairs are
    // seen.
    for (context_pairs, equal) in [(ContextPairs::All, true), (ContextPairs::Kept, false)] {
        let model =
            Glre::new(foundation(false), GlreSettings { context_pairs, ..small() }).unwrap();
        let documents = &documents()[..1];
        let (all, kept) = (examples(&model, documents, false), examples(&model, documents, true));
        assert!(kept[0].pairs.len() < all[0].pairs.len());
        let rows: Vec<i64> = kept[0]
            .pairs
            .iter()
            .map(|pair| all[0].pairs.iter().position(|p| p == pair).unwrap() as i64)
            .collect();
        let of_all = model
            .logits(&batch(&model, &all), EVALUATION)
            .unwrap()
            .index_select(0, &tch::Tensor::from_slice(&rows));
        let of_kept = model.logits(&batch(&model, &kept), EVALUATION).unwrap();
        let difference = (of_all - of_kept).abs().max().double_value(&[]);
        assert!((difference < 1e-6) == equal, "{context_pairs:?}: {difference}");
    }
}

#[test]
fn words_seen_once_are_hidden_half_of_the_time_in_training() {
    let model =
        Glre::new(foundation(false), GlreSettings { unknown_singletons: 0.5, ..small() }).unwrap();
    let layout = model.layout();
    let unknown = i64::from(crate::systems::words::tests::special().unk);
    let hidden = |train: bool, visit: u64| {
        let mut examples = examples(&model, &documents()[2..3], train);
        examples[0].visit = visit;
        let laid = layout.tables(&examples).unwrap();
        let laid: &GlreTables = crate::systems::tables(&laid).unwrap();
        laid.words.ids.iter().filter(|&&id| id == unknown).count()
    };
    assert_eq!(hidden(true, 1), 0, "nothing was counted yet");
    // Document 2 alone has four words, each once; twice over, none is a singleton.
    layout.observe(&mut documents()[2..3].iter().cloned().map(std::sync::Arc::new));
    let total: usize = (0..500).map(|visit| hidden(true, visit)).sum();
    assert!((900..1100).contains(&total), "{total} of 2,000");
    assert_eq!((hidden(true, 3), hidden(false, 3)), (hidden(true, 3), 0));
}

#[test]
fn documents_without_pairs_give_no_rows() {
    let model = Glre::new(foundation(false), small()).unwrap();
    for document in [1, 3] {
        let batch = batch(&model, &examples(&model, &documents()[document..=document], false));
        assert_eq!(model.logits(&batch, EVALUATION).unwrap().size(), [0, CLASSES as i64 + 1]);
    }
    assert_eq!(
        model.logits(&batch(&model, &[]), EVALUATION).unwrap().size(),
        [0, CLASSES as i64 + 1]
    );
}

#[test]
fn a_document_that_is_cut_still_has_all_entities() {
    let settings = GlreSettings { max_pieces: Some(6), reading: Reading::Pieces, ..small() };
    let model = Glre::new(foundation(true), settings).unwrap();
    let examples = examples(&model, &documents()[..1], false);
    let logits = model.logits(&batch(&model, &examples), EVALUATION).unwrap();
    assert_eq!(logits.size(), [12, CLASSES as i64 + 1]);
    assert!(bool::try_from(logits.isfinite().all()).unwrap());
}

#[test]
fn it_learns_a_handful_of_documents() {
    let model = Glre::new(foundation(false), GlreSettings { na_keep: 1.0, ..small() }).unwrap();
    let remaining = remaining_loss(&model, 150, 0.02);
    assert!(remaining < 0.1, "{remaining}");
}

/// The local attention of one side of a pair (equations 3 to 5): `query` asks the mentions with
/// their sentences.
fn local_by_hand(weights: &Plain, name: &str, query: &[f64], mentions: &[(&Row, &Row)]) -> Row {
    let map = |part: &str, x: &[f64]| {
        weights.product(&format!("heads.local_rep_layer.{name}.{part}.weight"), x)
    };
    let query = map("linear_q", query);
    let keys: Vec<Row> = mentions.iter().map(|(_, sentence)| map("linear_k", sentence)).collect();
    let values: Vec<Row> = mentions.iter().map(|(mention, _)| map("linear_v", mention)).collect();
    // Two heads of width four.
    let heads = [0..4usize, 4..8].map(|own| {
        let scores: Row =
            keys.iter().map(|key| dot(&query[own.clone()], &key[own.clone()]) / 2.0).collect();
        let values: Vec<&[f64]> = values.iter().map(|value| &value[own.clone()]).collect();
        attend(&scores, &values, 4)
    });
    let output = map("linear_final", &heads.concat());
    weights.layer_norm(&format!("heads.local_rep_layer.{name}.layer_norm"), &output, 1e-5)
}

#[test]
fn local_representations_with_node_types_are_equations_3_to_5() {
    let settings = GlreSettings { local_type_embedding: true, local_bias: false, ..small() };
    let model = Glre::new(foundation(false), settings).unwrap();
    let examples = examples(&model, &documents(), false);
    let laid = batch(&model, &examples).tables;
    let laid: &GlreTables = tables(&laid).unwrap();
    let states = model.states(laid, EVALUATION).unwrap();
    let [heads, tails] = states.local.as_ref().unwrap();
    let weights = Plain::of(model.parameters());
    let (typed, graph) = (rows(&states.typed), rows(&states.graph));
    // Nodes lie as entities, mentions, sentences of all documents.
    let entities: usize = examples.iter().map(|e| e.document.entities.len()).sum();
    let all_mentions = |example: &crate::systems::Example| -> usize {
        example.document.entities.iter().map(|entity| entity.mentions.len()).sum()
    };
    let mentions: usize = examples.iter().map(all_mentions).sum();
    let (mut entity, mut mention, mut sentence) = (0, entities, entities + mentions);
    let mut expected: [Vec<Row>; 2] = [Vec::new(), Vec::new()];
    for example in &examples {
        let mut of_entities = Vec::new();
        for own in &example.document.entities {
            let nodes = own.mentions.iter().map(|said| {
                mention += 1;
                (&typed[mention - 1], &typed[sentence + said.sentence as usize])
            });
            of_entities.push(nodes.collect::<Vec<_>>());
        }
        for &(head, tail) in &example.pairs {
            let (head, tail) = (head as usize, tail as usize);
            let side = |name: &str, answers: usize, asks: usize| {
                local_by_hand(&weights, name, &graph[entity + asks], &of_entities[answers])
            };
            expected[0].push(side("multiheadattention", head, tail));
            expected[1].push(side("multiheadattention1", tail, head));
        }
        entity += example.document.entities.len();
        sentence += example.document.sentence_starts.len() - 1;
    }
    assert!(expected[0].len() > 10, "documents have pairs");
    assert_close("heads", &numbers(heads), &expected[0].concat(), 1e-4);
    assert_close("tails", &numbers(tails), &expected[1].concat(), 1e-4);
}

#[test]
fn a_full_context_matrix_is_equation_7() {
    let settings = GlreSettings { context_matrix: ContextMatrix::Full, ..small() };
    let model = Glre::new(foundation(false), settings).unwrap();
    // Away from its diagonal start.
    let name = "heads.self_att.weight";
    let matrix = model.parameters().get(name).unwrap().detach();
    let noise = (tch::Tensor::arange(matrix.numel() as i64, (tch::Kind::Float, matrix.device()))
        .sin()
        * 0.05)
        .view_as(&matrix);
    model.parameters().assign(name, &(matrix + noise)).unwrap();
    let examples = examples(&model, &documents(), false);
    let laid = batch(&model, &examples).tables;
    let states = model.states(tables(&laid).unwrap(), EVALUATION).unwrap();
    let weights = Plain::of(model.parameters());
    let pairs = rows(&states.pairs);
    let width = pairs[0].len();
    // o_i W: the sum over rows of W.
    let times_matrix = |o: &Row| -> Row {
        let column = |column: usize| {
            (0..width).map(|row| o[row] * weights.0[name][row * width + column]).sum()
        };
        (0..width).map(column).collect()
    };
    let mut expected = Vec::new();
    let mut rest = &pairs[..];
    for example in &examples {
        let (own, others) = rest.split_at(example.pairs.len());
        rest = others;
        let asked: Vec<Row> = own.iter().map(times_matrix).collect();
        let values: Vec<&[f64]> = own.iter().map(Vec::as_slice).collect();
        for pair in own {
            let scores: Row = asked.iter().map(|asked| dot(asked, pair)).collect();
            expected.extend(attend(&scores, &values, width));
        }
    }
    assert_close("context", &numbers(states.context.as_ref().unwrap()), &expected, 1e-4);
}
