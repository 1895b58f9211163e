//! LSTM: parity with libtorch's own, batch invariance, threads, final states.

use tch::{Device, Kind};

use super::*;
use crate::torch::device::LocalThreads;
use crate::torch::rng::Generator;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// Inputs of one layer, all of them leaves.
struct Case {
    segments: Segments,
    x: Tensor,
    start: [Tensor; 2],
    weights: Vec<Tensor>,
}

/// Results and gradients of one run: states, final hidden, final cell; then of the input, the
/// initial states and the weights.
struct Outcome {
    values: [Tensor; 3],
    gradients: Vec<Tensor>,
}

fn segments_of(lengths: &[i64]) -> Segments {
    let offsets: Vec<i64> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        }))
        .collect();
    Segments::new(&offsets, Device::Cpu).unwrap()
}

impl Case {
    fn new(lengths: &[i64], input: i64, hidden: i64, directions: i64) -> Self {
        let mut generator = Generator::of_test(17);
        let segments = segments_of(lengths);
        let sizes =
            [vec![4 * hidden, input], vec![4 * hidden, hidden], vec![4 * hidden], vec![4 * hidden]];
        let bound = 1.5 / (hidden as f64).sqrt();
        let weights = (0..directions)
            .flat_map(|_| &sizes)
            .map(|size| generator.uniform(size, -bound, bound).unwrap())
            .collect();
        let x = generator.randn([segments.tokens(), input]);
        let mut state = || generator.randn([directions, lengths.len() as i64, hidden]) * 0.5;
        Self { x, start: [state(), state()], weights, segments }
    }

    /// The case of some of its sequences alone.
    fn only(&self, sequences: &[usize]) -> Self {
        let offsets = &self.segments.offsets;
        let rows: Vec<i64> = sequences.iter().flat_map(|&s| offsets[s]..offsets[s + 1]).collect();
        let lengths: Vec<i64> = sequences.iter().map(|&s| offsets[s + 1] - offsets[s]).collect();
        let chosen = Tensor::from_slice(&sequences.iter().map(|&s| s as i64).collect::<Vec<_>>());
        Self {
            segments: segments_of(&lengths),
            x: self.x.index_select(0, &Tensor::from_slice(&rows)),
            start: self.start.each_ref().map(|state| state.index_select(1, &chosen)),
            weights: self.weights.iter().map(Tensor::copy).collect(),
        }
    }

    /// Runs one layer and a loss in which every number of the results has a weight of its own.
    fn run(
        &self,
        kind: Kind,
        layer: impl Fn(&Tensor, &[&Tensor], [Tensor; 2]) -> LstmStates,
    ) -> Outcome {
        let leaf = |tensor: &Tensor| tensor.to_kind(kind).copy().set_requires_grad(true);
        let (x, hidden, cell) = (leaf(&self.x), leaf(&self.start[0]), leaf(&self.start[1]));
        let weights: Vec<Tensor> = self.weights.iter().map(leaf).collect();
        let out = layer(
            &x,
            &weights.iter().collect::<Vec<_>>(),
            [hidden.shallow_clone(), cell.shallow_clone()],
        );
        let weighted = |tensor: &Tensor, salt: f64| (tensor * loss_weights(tensor, salt)).sum(kind);
        (weighted(&out.states, 0.0) + weighted(&out.hidden, 1.0) + weighted(&out.cell, 2.0))
            .backward();
        let gradients =
            [x, hidden, cell].into_iter().chain(weights).map(|leaf| leaf.grad()).collect();
        Outcome { values: [out.states.detach(), out.hidden.detach(), out.cell.detach()], gradients }
    }

    fn ours(&self) -> Outcome {
        let packing = Packing::new(&self.segments, Device::Cpu).unwrap();
        self.run(Kind::Float, |x, weights, [hidden, cell]| {
            lstm_layer(x, &packing, weights, Some([&hidden, &cell]), true).unwrap()
        })
    }

    fn library(&self) -> Outcome {
        let order = LibraryOrder::new(&self.segments, Device::Cpu).unwrap();
        self.run(Kind::Double, |x, weights, start| order.run(x, weights, start, true).unwrap())
    }
}

/// A function of the place within the last dimension alone, so that company does not change a
/// sequence's loss.
fn loss_weights(tensor: &Tensor, salt: f64) -> Tensor {
    (Tensor::arange(tensor.size()[tensor.dim() - 1], CPU) * 1.7 + salt)
        .sin()
        .expand_as(tensor)
        .to_kind(tensor.kind())
}

/// Largest difference relative to the largest number of `wanted`.
fn relative(have: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(have.size(), wanted.size());
    if have.numel() == 0 {
        return 0.0;
    }
    largest_difference(have, wanted) / wanted.abs().max().double_value(&[]).max(1e-30)
}

#[test]
fn states_and_gradients_equal_libtorch() {
    let ragged = [3, 0, 1, 17, 5, 1, 0, 40, 9, 2, 2, 31];
    for (input, hidden, directions) in
        [(5, 3, 1), (50, 128, 2), (20, 33, 2), (150, 64, 1), (64, 16, 2)]
    {
        let case = Case::new(&ragged, input, hidden, directions);
        let (ours, library) = (case.ours(), case.library());
        for (name, (have, wanted)) in
            ["states", "hidden", "cell"].iter().zip(ours.values.iter().zip(&library.values))
        {
            assert!(
                relative(have, wanted) < 2e-6,
                "{name} of {input} → {directions}·{hidden}: {}",
                relative(have, wanted)
            );
        }
        for (place, (have, wanted)) in ours.gradients.iter().zip(&library.gradients).enumerate() {
            assert!(
                relative(have, wanted) < 5e-6,
                "gradient {place} of {input} → {directions}·{hidden}: {}",
                relative(have, wanted)
            );
        }
    }
}

#[test]
fn saturated_gates_equal_libtorch() {
    let mut case = Case::new(&[12, 7, 30], 8, 20, 2);
    case.x *= 60.0;
    let (ours, library) = (case.ours(), case.library());
    assert!(relative(&ours.values[0], &library.values[0]) < 1e-5);
    assert!(ours.gradients.iter().all(|gradient| gradient.isfinite().all().int64_value(&[]) == 1));
}

#[test]
fn stacks_of_layers_equal_libtorch() {
    let lengths = [4, 1, 0, 11, 6];
    for (layers, bidirectional) in [(1, false), (2, true), (3, false), (3, true)] {
        let shape = LstmShape { input: 6, hidden: 10, layers, bidirectional };
        let mut params = Parameters::new(3, Device::Cpu);
        let stack = PackedLstm::declare("rnn", shape, &mut params).unwrap();
        let mut generator = Generator::of_test(5);
        tch::no_grad(|| {
            for entry in params.iter() {
                entry
                    .tensor
                    .shallow_clone()
                    .copy_(&generator.uniform(&entry.tensor.size(), -0.4, 0.4).unwrap());
            }
        });
        let segments = segments_of(&lengths);
        let x = generator.randn([segments.tokens(), 6]).set_requires_grad(true);
        let leaves: Vec<Tensor> = params
            .trainable()
            .map(|entry| entry.tensor.shallow_clone())
            .chain([x.shallow_clone()])
            .collect();
        let ours = stack
            .forward(&x, &Packing::new(&segments, Device::Cpu).unwrap(), None, 0, true)
            .unwrap();
        let mut library = Packing::new(&segments, Device::Cpu).unwrap();
        library.library = Some(LibraryOrder::new(&segments, Device::Cpu).unwrap());
        let wanted = stack.forward(&x, &library, None, 0, true).unwrap();
        assert!(relative(&ours, &wanted) < 2e-6);
        let gradients = |out: &Tensor| {
            Tensor::run_backward(
                &[(out * loss_weights(out, 0.5)).sum(Kind::Float)],
                &leaves,
                false,
                false,
            )
        };
        for (have, wanted) in gradients(&ours).iter().zip(&gradients(&wanted)) {
            assert!(relative(have, wanted) < 5e-6, "{layers} layers: {}", relative(have, wanted));
        }
    }
}

#[test]
fn without_initial_states_sequences_start_from_zeros() {
    let mut case = Case::new(&[5, 0, 2], 4, 7, 2);
    let packing = Packing::new(&case.segments, Device::Cpu).unwrap();
    case.start = case.start.each_ref().map(Tensor::zeros_like);
    let weights: Vec<&Tensor> = case.weights.iter().collect();
    let free = lstm_layer(&case.x, &packing, &weights, None, false).unwrap();
    assert_eq!([free.states, free.hidden, free.cell], case.ours().values);
    // Final states: the last token forwards, the first one backwards, zeros where there is no
    // token.
    let out = &case.ours().values;
    assert_eq!(out[1].get(0).get(0), out[0].get(4).narrow(0, 0, 7));
    assert_eq!(out[1].get(1).get(2), out[0].get(5).narrow(0, 7, 7));
    assert_eq!(out[1].get(0).get(1).abs().max().double_value(&[]), 0.0);
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_in_company() {
    // Every height of a tile occurs, and sequences end at different steps.
    let lengths = [130, 1, 17, 64, 65, 200, 3, 90, 33, 12, 140, 7, 250];
    let case = Case::new(&lengths, 50, 40, 2);
    let together = case.ours();
    for company in [
        vec![0],
        vec![5, 2],
        vec![9, 4, 0],
        vec![1, 2, 3, 4],
        (3..8).collect(),
        (0..6).collect(),
        (2..9).collect(),
        (0..12).collect(),
    ] {
        let alone = case.only(&company).ours();
        let offsets = &case.segments.offsets;
        let rows: Vec<i64> = company.iter().flat_map(|&s| offsets[s]..offsets[s + 1]).collect();
        let rows = Tensor::from_slice(&rows);
        let chosen = Tensor::from_slice(&company.iter().map(|&s| s as i64).collect::<Vec<_>>());
        assert_eq!(
            alone.values[0],
            together.values[0].index_select(0, &rows),
            "states of {company:?}"
        );
        assert_eq!(alone.values[1], together.values[1].index_select(1, &chosen));
        assert_eq!(alone.values[2], together.values[2].index_select(1, &chosen));
        assert_eq!(
            alone.gradients[0],
            together.gradients[0].index_select(0, &rows),
            "input gradients of {company:?}"
        );
        assert_eq!(alone.gradients[1], together.gradients[1].index_select(1, &chosen));
        assert_eq!(alone.gradients[2], together.gradients[2].index_select(1, &chosen));
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let case = Case::new(&[30, 170, 1, 0, 55, 80, 81, 12, 9, 44, 3, 29, 100], 20, 48, 2);
    let one = {
        let _threads = LocalThreads::new(1);
        case.ours()
    };
    for threads in [2, 3, 8] {
        let _threads = LocalThreads::new(threads);
        let many = case.ours();
        assert_eq!(many.values, one.values, "{threads} threads");
        assert_eq!(many.gradients, one.gradients, "{threads} threads");
    }
}

#[test]
fn what_is_not_a_number_stays_so_and_stays_where_it_is() {
    let case = Case::new(&[6, 5], 4, 7, 1);
    let _ = case.x.get(2).fill_(f64::NAN);
    let states = &case.ours().values[0];
    assert_eq!(
        states.isnan().any_dim(1, false),
        Tensor::from_slice(&[
            false, false, true, true, true, true, false, false, false, false, false
        ])
    );
}

#[test]
fn refuses_what_does_not_fit() {
    let case = Case::new(&[3, 2], 4, 7, 2);
    let packing = Packing::new(&case.segments, Device::Cpu).unwrap();
    let weights: Vec<&Tensor> = case.weights.iter().collect();
    let refused = |x: &Tensor, weights: &[&Tensor], start: Option<[&Tensor; 2]>| {
        lstm_layer(x, &packing, weights, start, true).unwrap_err().to_string()
    };
    assert!(refused(&case.x.narrow(0, 0, 4), &weights, None).contains("do not cover 4 tokens"));
    assert!(refused(&case.x.narrow(1, 0, 3), &weights, None).contains("weight 0 must be [28, 3]"));
    assert!(refused(&case.x, &weights[..7], None).contains("four weights"));
    let start = Tensor::zeros([2, 3, 7], CPU);
    assert!(
        refused(&case.x, &weights, Some([&start, &start]))
            .contains("[directions, sequences, hidden]")
    );
    // The gates are overwritten by the first backward pass, so a second one would be wrong.
    let x = case.x.copy().set_requires_grad(true);
    let loss = lstm_layer(&x, &packing, &weights, None, true).unwrap().states.sum(Kind::Float);
    let backward = || Tensor::f_run_backward(&[&loss], &[&x], true, false);
    assert!(backward().is_ok());
    assert!(backward().unwrap_err().to_string().contains("runs once"));
}
