//! Adam and its variants on one number.

use crate::torch::AdamSettings;

/// A number after `steps` steps from `p`, with a gradient that depends on it: Algorithm 2 of the
/// AdamW paper (both decays) with a constant schedule, and AMSGrad's running maximum.
pub fn adam(settings: &AdamSettings, mut p: f64, gradient: impl Fn(f64) -> f64, steps: i32) -> f64 {
    let AdamSettings { lr, betas: (b1, b2), eps, weight_decay, decoupled, amsgrad } = *settings;
    let (mut m, mut v, mut largest) = (0.0, 0.0, 0f64);
    for t in 1..=steps {
        let g = gradient(p) + if decoupled { 0.0 } else { weight_decay * p };
        m = b1 * m + (1.0 - b1) * g;
        v = b2 * v + (1.0 - b2) * g * g;
        largest = largest.max(v);
        let second = if amsgrad { largest } else { v };
        let (m_hat, v_hat) = (m / (1.0 - b1.powi(t)), second / (1.0 - b2.powi(t)));
        p -= lr * (m_hat / (v_hat.sqrt() + eps) + if decoupled { weight_decay * p } else { 0.0 });
    }
    p
}
