//! Convolution and max-pooling of width 3 over packed documents: a word's neighbours are those of
//! its own document.

use tch::{Kind, Tensor};

use crate::Result;
use crate::torch::kernels::Segments;
use crate::torch::kernels::products::linear;
use crate::torch::{Init, Parameters, on};

/// Width of the kernels.
const KERNEL: i64 = 3;

/// Which words have a neighbour before and after them in their document.
#[derive(Debug)]
pub(super) struct Borders {
    /// 1 where there is a word before; [W, 1].
    before: Tensor,
    /// 1 where there is a word after; [W, 1].
    after: Tensor,
}

impl Borders {
    pub fn new(segments: &Segments) -> Result<Self> {
        let (mut before, mut after) =
            (vec![1f32; segments.tokens() as usize], vec![1f32; segments.tokens() as usize]);
        for span in segments.offsets.windows(2).filter(|span| span[0] < span[1]) {
            before[span[0] as usize] = 0.0;
            after[span[1] as usize - 1] = 0.0;
        }
        let device = segments.device.device();
        let column = |values: &[f32]| -> Result<Tensor> { Ok(on(values, device)?.f_unsqueeze(1)?) };
        Ok(Self { before: column(&before)?, after: column(&after)? })
    }

    /// Each word's neighbours before and after, zero beyond the document; [W, d] each.
    fn neighbours(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        let (words, width) = x.size2()?;
        let zero = Tensor::f_zeros([1, width], (x.kind(), x.device()))?;
        let before =
            Tensor::f_cat(&[&zero, &x.f_narrow(0, 0, words - 1)?], 0)?.f_mul(&self.before)?;
        let after =
            Tensor::f_cat(&[&x.f_narrow(0, 1, words - 1)?, &zero], 0)?.f_mul(&self.after)?;
        Ok([before, after])
    }

    /// The maximum over each word and its neighbours, stride 1; [W, d].
    pub fn max_pool(&self, x: &Tensor) -> Result<Tensor> {
        let [before, after] = self.neighbours(x)?;
        let hide = |neighbour: &Tensor, there: &Tensor| {
            neighbour.f_masked_fill(&there.f_eq(0.0)?, f64::NEG_INFINITY)
        };
        Ok(hide(&before, &self.before)?.f_maximum(x)?.f_maximum(&hide(&after, &self.after)?)?)
    }
}

/// One convolution of width 3 with one word of zeros at either end.
#[derive(Debug)]
pub(super) struct Convolution {
    /// [out, in, 3]
    weight: Tensor,
    /// `[out]`
    bias: Tensor,
}

impl Convolution {
    /// Declares `name.weight` and `name.bias` ~ U(−1/√(3·in), 1/√(3·in)).
    pub fn declare(parameters: &mut Parameters, name: &str, input: i64, out: i64) -> Result<Self> {
        let init = Init::Uniform { bound: 1.0 / ((input * KERNEL) as f64).sqrt() };
        Ok(Self {
            weight: parameters.declare(format!("{name}.weight"), &[out, input, KERNEL], init)?,
            bias: parameters.declare(format!("{name}.bias"), &[out], init)?,
        })
    }

    /// [W, in] → [W, out], as one product over each word with its neighbours.
    pub fn forward(&self, x: &Tensor, borders: &Borders) -> Result<Tensor> {
        let (out, input, _) = self.weight.size3()?;
        if x.size()[0] == 0 {
            return Ok(Tensor::f_zeros([0, out], (Kind::Float, x.device()))?);
        }
        let [before, after] = borders.neighbours(x)?;
        let windows = Tensor::f_cat(&[&before, x, &after], 1)?; // [W, 3 · in]
        let weight = self.weight.f_permute([0, 2, 1])?.f_reshape([out, KERNEL * input])?;
        linear(&windows, &weight, Some(&self.bias))
    }
}
