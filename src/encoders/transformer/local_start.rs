//! A start for small Transformers without pre-trained weights: attention that looks nearby and at
//! equal pieces from the first step.
//!
//! Positions start as sinusoids of the same variance as the words, and each head's key projection
//! starts equal to its query projection, so that scores begin as a noisy inner product of two
//! tokens' embeddings: large for neighbours and for the same piece elsewhere (an entity's markers).
//! The idea is mimetic initialisation (Trockman and Kolter 2023). Not for: encoders that come from
//! a folder.

use tch::{Kind, Tensor};

use crate::Result;
use crate::torch::Parameters;

/// Ratio of the longest wavelength of the position sinusoids to the shortest. Small, so that
/// neighbours tens of tokens away differ.
const WAVELENGTHS: f64 = 100.0;
/// Standard deviation of query weights, times √d. At 1 a token's score with itself is about √(head
/// width), which hides its neighbours.
const GAIN: f64 = 0.7;

/// Overwrites position embeddings, query and key weights of an encoder whose parameters have just
/// been declared with standard deviation `std`. `projections` names the query and key weights of
/// each layer.
///
/// # Errors
/// Names that were not declared.
pub(super) fn start_local(
    parameters: &Parameters,
    positions: &str,
    projections: &[[String; 2]],
    std: f64,
) -> Result<()> {
    let (rows, width) = parameters.handle(positions)?.size2()?;
    let values = Tensor::f_from_slice(&sinusoids(rows, width, std))?;
    parameters.assign(positions, &values.f_view([rows, width])?)?;
    for [query, key] in projections {
        let scale = GAIN / ((width as f64).sqrt() * std);
        let weight = parameters.handle(query)?.f_detach()?.f_to_kind(Kind::Float)?;
        let weight = weight.f_mul_scalar(scale)?;
        parameters.assign(query, &weight)?;
        parameters.assign(key, &weight)?;
    }
    Ok(())
}

/// Row-major [positions × width]: sine and cosine in turn, wavelengths in geometric progression,
/// standard deviation `std`.
fn sinusoids(positions: i64, width: i64, std: f64) -> Vec<f32> {
    let amplitude = std * std::f64::consts::SQRT_2;
    let value = |position: i64, channel: i64| {
        let frequency = WAVELENGTHS.powf(-((channel / 2 * 2) as f64) / width as f64);
        let angle = position as f64 * frequency;
        (amplitude * if channel % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
    };
    (0..positions)
        .flat_map(|position| (0..width).map(move |channel| value(position, channel)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_more_alike_than_strangers_and_the_variance_is_as_asked() {
        let (width, std) = (128, 0.02);
        let rows = sinusoids(512, width, std);
        let row = |position: usize| &rows[position * width as usize..][..width as usize];
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        let variance = dot(&rows, &rows) / rows.len() as f64;
        assert!((variance.sqrt() - std).abs() < 1e-3, "{variance}");
        let own = dot(row(100), row(100));
        assert!(dot(row(100), row(101)) > 0.9 * own);
        assert!(dot(row(100), row(140)) < 0.4 * own);
    }
}
