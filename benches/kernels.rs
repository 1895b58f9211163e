//! Rates of the kernels and of the sampler: `cargo bench --bench kernels [-- NAME…]`, on an idle
//! machine. Stages and systems are measured by `docre-pretrain bench`.

use std::hint::black_box;
use std::time::Instant;

use docre::measured::{
    DsdocreSettings, FactInstance, Generator, Packing, Precision, PretrainSampler, ScoreTerms,
    ScoredPair, Segments, TokenizedEntity, TokenizedFact, TokenizedMention, grouped_bilinear,
    lstm_layer, matmul_rate, varlen_attention,
};
use docre::{Result, TokenizedDocument};
use tch::{Device, Kind, Tensor};

/// Repetitions, of which the best counts.
const ROUNDS: usize = 7;

/// A benchmark, given the rate of a large matrix product in FLOP/s.
type Benchmark = fn(f64) -> Result<()>;

const BENCHES: [(&str, Benchmark); 4] =
    [("attention", attention), ("grouped", grouped), ("lstm", lstm), ("sampling", sampling)];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this program too, without the flag.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let names: Vec<&String> = arguments.iter().filter(|name| !name.starts_with('-')).collect();
    let peak = matmul_rate(Device::Cpu, Precision::Fp32)?;
    println!("{} threads, products at {:.0} GFLOP/s", tch::get_num_threads(), peak * 1e-9);
    for (name, bench) in BENCHES {
        if names.is_empty() || names.iter().any(|wanted| *wanted == name) {
            bench(peak)?;
        }
    }
    Ok(())
}

/// Seconds of the fastest forward and the fastest backward pass.
fn passes(mut forward: impl FnMut() -> Result<Tensor>) -> Result<[f64; 2]> {
    let mut best = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let out = forward()?;
        best[0] = best[0].min(start.elapsed().as_secs_f64());
        let loss = out.f_sum(Kind::Float)?;
        let start = Instant::now();
        loss.f_backward()?;
        best[1] = best[1].min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn leaf(generator: &mut Generator, shape: &[i64]) -> Result<Tensor> {
    Ok(generator.normal(shape)?.f_set_requires_grad(true)?)
}

/// Prints rates of passes of so many FLOPs forward and twice as many backward.
fn report(name: &str, flops: f64, [forward, backward]: [f64; 2], peak: f64) {
    let rate = |flops: f64, seconds: f64| {
        format!("{:.0} GFLOP/s ({:.0} %)", flops / seconds * 1e-9, 100.0 * flops / seconds / peak)
    };
    println!("{name}: forward {}, backward {}", rate(flops, forward), rate(2.0 * flops, backward));
}

/// 32 documents of 256 tokens.
fn attention(peak: f64) -> Result<()> {
    let mut generator = Generator::new(1)?;
    let offsets: Vec<i64> = (0..=32).map(|document| document * 256).collect();
    let segments = Segments::new(&offsets, Device::Cpu)?;
    let terms = ScoreTerms::plain(64);
    for heads in [2, 4] {
        let qkv = leaf(&mut generator, &[8192, 3, heads, 64])?;
        let flops = 32.0 * 4.0 * 256.0 * 256.0 * 64.0 * heads as f64;
        let seconds = passes(|| varlen_attention(&qkv, &segments, &terms, None, 0))?;
        report(&format!("attention, {heads} heads"), flops, seconds, peak);
    }
    Ok(())
}

/// ATLOP's size, on one thread.
fn grouped(peak: f64) -> Result<()> {
    let mut generator = Generator::new(4)?;
    let (heads, tails) = (leaf(&mut generator, &[1520, 768])?, leaf(&mut generator, &[1520, 768])?);
    let weight = leaf(&mut generator, &[97, 12 * 64 * 64])?;
    let flops = 2.0 * 1520.0 * 97.0 * 12.0 * 64.0 * 64.0;
    let threads = tch::get_num_threads();
    tch::set_num_threads(1);
    let seconds = passes(|| grouped_bilinear(&heads, &tails, &weight, None, 12, Precision::Fp32))?;
    tch::set_num_threads(threads);
    report("grouped bilinear, one thread", flops, seconds, peak / f64::from(threads));
    Ok(())
}

/// Documents of a micro-batch and thousands of short sequences, against libtorch's LSTM.
fn lstm(peak: f64) -> Result<()> {
    const HIDDEN: i64 = 128;
    let mut generator = Generator::new(17)?;
    for (name, count, mean, input) in
        [("documents", 30, 280, 50), ("documents", 8, 280, 100), ("short sequences", 3000, 8, 256)]
    {
        let lengths: Vec<i64> = (0..count).map(|i| mean / 2 + i * 37 % mean).collect();
        let mut offsets = vec![0];
        offsets.extend(lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        }));
        let segments = Segments::new(&offsets, Device::Cpu)?;
        let packing = Packing::new(&segments, Device::Cpu)?;
        let x = leaf(&mut generator, &[segments.tokens(), input])?;
        let one = [vec![4 * HIDDEN, input], vec![4 * HIDDEN, HIDDEN], vec![4 * HIDDEN]];
        let weights: Vec<Tensor> = [0, 1, 2, 2, 0, 1, 2, 2]
            .iter()
            .map(|part| {
                let weight = generator.uniform(&one[*part], -0.1, 0.1)?;
                Ok(weight.f_set_requires_grad(true)?)
            })
            .collect::<Result<_>>()?;
        let weights: Vec<&Tensor> = weights.iter().collect();
        let flops = 2.0 * 2.0 * (segments.tokens() * 4 * HIDDEN * (input + HIDDEN)) as f64;
        let ours = passes(|| Ok(lstm_layer(&x, &packing, &weights, None, true)?.states))?;
        report(&format!("LSTM, {count} {name} of {mean}, {input} → 2·{HIDDEN}"), flops, ours, peak);
        // libtorch takes tokens step by step; which rows they are does not matter to the time.
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let running: Vec<i64> = (0..longest)
            .map(|step| lengths.iter().filter(|length| **length > step).count() as i64)
            .collect();
        let running = Tensor::f_from_slice(&running)?;
        let zeros = Tensor::f_zeros([2, count, HIDDEN], (Kind::Float, Device::Cpu))?;
        let library = passes(|| {
            let start = [&zeros, &zeros];
            let (states, ..) =
                Tensor::f_lstm_data(&x, &running, &start[..], &weights, true, 1, 0.0, true, true)?;
            Ok(states)
        })?;
        report("  libtorch", flops, library, peak);
    }
    Ok(())
}

/// Pre-training items of documents of twelve entities.
fn sampling(_peak: f64) -> Result<()> {
    let corpus: Vec<TokenizedDocument> = (0..1000).map(document).collect();
    let instance = |row| FactInstance { row, head: 0, tail: 1, relation: 1 };
    let keys: Vec<Vec<FactInstance>> =
        (0..500).map(|key| vec![instance(2 * key), instance(2 * key + 1)]).collect();
    let settings = DsdocreSettings { k_pretrain: 6, ..DsdocreSettings::default() };
    let sampler = PretrainSampler::new(&corpus, &keys, settings)?;
    let start = Instant::now();
    for item in 0..20_000 {
        let _ = black_box(sampler.sample(1, 0, item));
    }
    println!("sampling: {:.0} items/s", 20_000.0 / start.elapsed().as_secs_f64());
    Ok(())
}

fn document(title: usize) -> TokenizedDocument {
    let mention = |name: String, word| TokenizedMention {
        name,
        start: word,
        end: word + 1,
        ..TokenizedMention::default()
    };
    let entity = |e: u32| {
        let alias = (e < 4).then(|| mention(format!("alias{e}"), 11));
        let mentions = std::iter::once(mention(format!("name{e}"), e)).chain(alias).collect();
        TokenizedEntity { mentions, ..TokenizedEntity::default() }
    };
    let fact = |(head, tail, relation)| TokenizedFact { head, tail, relation, evidence: vec![] };
    let kept = |(rank, (head, tail)): (u16, (u32, u32))| ScoredPair {
        head,
        tail,
        score: -f32::from(rank),
    };
    TokenizedDocument {
        title: title.to_string(),
        pieces: (0..12).collect(),
        word_starts: (0..=12).collect(),
        sentence_starts: vec![0, 12],
        entities: (0..12).map(entity).collect(),
        facts: [(0, 1, 0), (0, 1, 1), (2, 3, 2), (4, 5, 0), (6, 7, 3), (8, 9, 2)].map(fact).into(),
        kept: Some(
            (0..)
                .zip([(0, 1), (11, 10), (2, 3), (4, 5), (10, 0), (6, 7), (8, 9)])
                .map(kept)
                .collect(),
        ),
        labelled: true,
        ..TokenizedDocument::default()
    }
}
