//! Self-attention over packed documents (Vaswani et al. 2017): inside encoders, and over pairs
//! (docs/systems.md, G.12 and B.7).
//!
//! Not for: the projections around it (`torch::nn`).

use tch::{Kind, Tensor};

use super::padded;
use super::scores::ScoreTerms;
use super::segments::Segments;
use crate::Result;
use crate::torch::dropout::Dropout;
use crate::torch::shim::{docre_attention, docre_flash_attention, pointer, produce};

/// Self-attention inside each document: softmax(scores)·v, with dropout on the probabilities where
/// asked. [`ScoreTerms`] says what the scores are.
///
/// `qkv`: [T, 3, heads, width], contiguous, fp32 or bf16; the result is [T, heads · width] of the
/// same kind. On the CPU a document's result and gradient have the same bits whatever shares its
/// stream and however many threads work. CUDA uses flash attention for 16-bit kinds without terms
/// of distances, else padding; dropout masks are then libtorch's own.
///
/// # Errors
/// If shapes, kinds or `segments` do not fit.
pub fn varlen_attention(
    qkv: &Tensor,
    segments: &Segments,
    terms: &ScoreTerms,
    dropout: Option<&Dropout>,
    salt: u64,
) -> Result<Tensor> {
    let dropout = dropout.filter(|active| active.p > 0.0);
    let p = dropout.map_or(0.0, |active| active.p);
    if qkv.device().is_cuda() {
        return cuda_attention(qkv, segments, terms, p);
    }
    let keys = dropout.map(|active| &active.token_keys);
    let tensors = terms.pointers();
    // SAFETY: all pointers are to live tensors, or null where the shim allows it.
    produce(|out| unsafe {
        docre_attention(
            qkv.as_ptr(),
            segments.host.as_ptr(),
            pointer(keys),
            salt.cast_signed(),
            p,
            tensors.as_ptr(),
            terms.side(),
            terms.scale,
            out,
        )
    })
}

/// Whether flash attention has kernels for heads of this width.
fn flash_width(width: i64) -> bool {
    width % 8 == 0 && width <= 256
}

/// Flash attention for 16-bit kinds; else by padding every document to the longest one.
fn cuda_attention(qkv: &Tensor, segments: &Segments, terms: &ScoreTerms, p: f64) -> Result<Tensor> {
    let flash = matches!(qkv.kind(), Kind::BFloat16 | Kind::Half)
        && segments.tokens() > 0
        && terms.are_products()
        && flash_width(qkv.size4()?.3);
    if !flash {
        return padded::attention(qkv, segments, terms, p);
    }
    let qkv = match &terms.rotary {
        Some(rotary) => padded::rotated_stream(qkv, segments, rotary)?,
        None => qkv.shallow_clone(),
    };
    let (offsets, longest) = (segments.device.as_ptr(), segments.longest);
    // SAFETY: all pointers are to live tensors.
    produce(|out| unsafe {
        docre_flash_attention(qkv.as_ptr(), offsets, longest, p, terms.side(), terms.scale, out)
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::torch::device::LocalThreads;
    use crate::torch::plain::attention::attention;
    use crate::torch::rng::Generator;

    fn stream(tokens: i64, heads: i64, width: i64, seed: u64) -> Tensor {
        Generator::of_test(seed).randn([tokens, 3, heads, width])
    }

    fn plain_terms(qkv: &Tensor) -> ScoreTerms {
        ScoreTerms::plain(qkv.size()[3])
    }

    /// One document, in doubles; `keep`: [heads, L, L] factors on the probabilities.
    fn plain(document: &Tensor, keep: Option<&Tensor>) -> Tensor {
        attention(document, &[0, document.size()[0]], &plain_terms(document), keep)
    }

    fn error(a: &Tensor, b: &Tensor) -> f64 {
        if a.numel() == 0 {
            0.0
        } else {
            (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
        }
    }

    /// Output and gradient of the kernel under test, with a fixed upstream gradient.
    fn both(qkv: &Tensor, segments: &Segments, active: Option<&Dropout>) -> (Tensor, Tensor) {
        let leaf = qkv.copy().set_requires_grad(true);
        let out = varlen_attention(&leaf, segments, &plain_terms(qkv), active, 11).unwrap();
        (&out * weights(&out)).sum(Kind::Float).backward();
        (out.detach(), leaf.grad())
    }

    /// A function of the element's place within its row alone, so that cutting the stream does not
    /// change it.
    fn weights(out: &Tensor) -> Tensor {
        Tensor::arange(out.size()[1], (Kind::Float, Device::Cpu))
            .sin()
            .expand_as(out)
            .to_kind(out.kind())
    }

    #[test]
    fn equals_plain_attention_document_by_document() {
        // Lengths around the lane width and the block of rows, an empty document, a head width that
        // is no multiple of the lanes.
        for (heads, width) in [(2, 16), (3, 10), (1, 64)] {
            let offsets = [0, 1, 18, 18, 82, 147, 347];
            let segments = Segments::new(&offsets, Device::Cpu).unwrap();
            let qkv = stream(347, heads, width, 1);
            let leaf = qkv.copy().set_requires_grad(true);
            let parts: Vec<_> = offsets
                .windows(2)
                .map(|w| plain(&leaf.narrow(0, w[0], w[1] - w[0]), None))
                .collect();
            let expected = Tensor::cat(&parts, 0);
            (&expected * weights(&expected).to_kind(Kind::Double)).sum(Kind::Double).backward();
            let (out, grad) = both(&qkv, &segments, None);
            assert!(error(&out, &expected) < 2e-6, "{}", error(&out, &expected));
            assert!(error(&grad, &leaf.grad()) < 5e-6, "{}", error(&grad, &leaf.grad()));
        }
    }

    #[test]
    fn is_stable_for_large_scores() {
        let segments = Segments::new(&[0, 70], Device::Cpu).unwrap();
        let qkv = stream(70, 1, 16, 2) * 30.0;
        let (out, grad) = both(&qkv, &segments, None);
        assert!(error(&out, &plain(&qkv, None)) < 2e-3);
        assert!(grad.isfinite().all().int64_value(&[]) == 1);
    }

    #[test]
    fn bits_depend_on_neither_neighbours_nor_threads() {
        let qkv = stream(300, 2, 24, 3);
        let segments = Segments::new(&[0, 90, 293, 300], Device::Cpu).unwrap();
        let keys = Tensor::from_slice(
            &(0..300).map(|t| Dropout::token_key(1, 2, 3, t)).collect::<Vec<_>>(),
        );
        let active = Dropout::new(0.2, keys.shallow_clone()).unwrap();
        let (out, grad) = both(&qkv, &segments, Some(&active));
        for threads in [1, 2, 3] {
            let _threads = LocalThreads::new(threads);
            let one = Segments::new(&[0, 203], Device::Cpu).unwrap();
            let alone = Dropout::new(0.2, keys.narrow(0, 90, 203)).unwrap();
            let (part, part_grad) = both(&qkv.narrow(0, 90, 203), &one, Some(&alone));
            assert_eq!(part, out.narrow(0, 90, 203));
            assert_eq!(part_grad, grad.narrow(0, 90, 203));
            assert_eq!(
                both(&qkv, &segments, Some(&active)),
                (out.shallow_clone(), grad.shallow_clone())
            );
        }
    }

    #[test]
    fn dropout_acts_on_the_probabilities_and_on_their_gradient() {
        let (length, heads) = (40, 2);
        let keys = Tensor::from_slice(
            &(0..40).map(|t| Dropout::token_key(0, 0, 0, t)).collect::<Vec<_>>(),
        );
        let active = Dropout::new(0.25, keys).unwrap();
        let segments = Segments::new(&[0, length], Device::Cpu).unwrap();
        // The factors show themselves where v is the identity and all scores are equal.
        let probe = Tensor::zeros([length, 3, heads, length], (Kind::Float, Device::Cpu));
        let identity = Tensor::eye(length, (Kind::Float, Device::Cpu))
            .unsqueeze(1)
            .expand([length, heads, length], true);
        probe.select(1, 2).copy_(&identity);
        let seen = varlen_attention(&probe, &segments, &plain_terms(&probe), Some(&active), 11)
            .unwrap()
            * length as f64;
        let keep = seen.view([length, heads, length]).transpose(0, 1).to_kind(Kind::Double);
        let kept = keep.gt(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((kept - 0.75).abs() < 0.03 && !keep.get(0).equal(&keep.get(1)), "{kept}");

        let qkv = stream(length, heads, 16, 4);
        let leaf = qkv.copy().set_requires_grad(true);
        let expected = plain(&leaf, Some(&keep));
        (&expected * weights(&expected).to_kind(Kind::Double)).sum(Kind::Double).backward();
        let (out, grad) = both(&qkv, &segments, Some(&active));
        assert!(error(&out, &expected) < 5e-6 && error(&grad, &leaf.grad()) < 1e-5);
    }

    #[test]
    fn bf16_stays_close_to_fp32() {
        let segments = Segments::new(&[0, 50, 130], Device::Cpu).unwrap();
        let qkv = stream(130, 2, 32, 5).to_kind(Kind::BFloat16);
        let (exact, exact_grad) = both(&qkv.to_kind(Kind::Float), &segments, None);
        let (out, grad) = both(&qkv, &segments, None);
        assert_eq!(out.kind(), Kind::BFloat16);
        // One rounding to eight bits of mantissa of the result; the gradient also reads the rounded
        // output.
        assert!(error(&out, &exact) < 0.004 * exact.abs().max().double_value(&[]));
        assert!(error(&grad, &exact_grad) < 0.01 * exact_grad.abs().max().double_value(&[]));
    }

    #[test]
    fn padding_gives_the_same_attention() {
        let segments = Segments::new(&[0, 5, 5, 30, 31], Device::Cpu).unwrap();
        let qkv = stream(31, 2, 16, 6);
        let leaf = qkv.copy().set_requires_grad(true);
        let padded = cuda_attention(&leaf, &segments, &plain_terms(&leaf), 0.0).unwrap();
        (&padded * weights(&padded)).sum(Kind::Float).backward();
        let (out, grad) = both(&qkv, &segments, None);
        assert!(error(&out, &padded) < 2e-6 && error(&grad, &leaf.grad()) < 5e-6);
    }

    #[test]
    fn widths_that_flash_attention_lacks_are_padded() {
        let has = |width| flash_width(width);
        assert!([8, 16, 64, 128, 256].into_iter().all(has));
        assert!(![4, 26, 63, 264].into_iter().any(has));
        // Without a GPU flash attention is an error, so this is the padded form.
        let segments = Segments::new(&[0, 5, 5, 30], Device::Cpu).unwrap();
        let qkv = stream(30, 2, 26, 7).to_kind(Kind::BFloat16);
        let padded = cuda_attention(&qkv, &segments, &plain_terms(&qkv), 0.0).unwrap();
        assert_eq!(padded.kind(), Kind::BFloat16);
        let exact = attention(&qkv, &segments.offsets, &plain_terms(&qkv), None);
        assert!(error(&padded, &exact) < 0.02 * exact.abs().max().double_value(&[]));
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let segments = Segments::new(&[0, 4], Device::Cpu).unwrap();
        for wrong in [stream(5, 1, 8, 0), stream(4, 1, 8, 0).to_kind(Kind::Double)] {
            let terms = plain_terms(&wrong);
            assert!(varlen_attention(&wrong, &segments, &terms, None, 0).is_err());
        }
    }
}
