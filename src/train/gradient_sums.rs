//! The sums of gradients over micro-batches and ranks.
//!
//! Not for the sums themselves (`ranks`): here one of the two ways is chosen and driven.

use std::sync::Arc;

use tch::Tensor;

use super::communication::WirePrecision;
use super::division::Division;
use crate::Result;
use crate::ranks::{FixedTree, GradientReducer, World};
use crate::torch::hooks::{self, HookGuard};
use crate::torch::{FreshGradients, GradientBuckets};

/// Size of a gradient bucket in bytes: large enough for the wire, small enough to overlap.
pub const BUCKET_BYTES: usize = 32 << 20;

/// How gradients are added up over ranks.
pub(super) enum GradientSums {
    /// While the backward pass is still running, in the order of the library that carries them.
    AsTheyCome {
        reducer: Arc<GradientReducer>,
        /// What moves the gradients of a GPU into the buckets.
        fresh: Option<Arc<FreshGradients>>,
        _hooks: Vec<HookGuard>,
    },
    /// After it, in one order.
    InOrder(FixedTree),
}

impl GradientSums {
    /// Registers the hooks of the reducer, or prepares the tree, which always sends fp32.
    pub fn new(
        division: Division,
        parameters: &[(String, Tensor)],
        buckets: &GradientBuckets,
        wire: WirePrecision,
        world: &World,
    ) -> Result<Self> {
        if let Division::Fixed(leaves) = division {
            return Ok(Self::InOrder(FixedTree::new(leaves)));
        }
        let flat = buckets.list();
        // A GPU without other ranks has no buckets.
        let owned = if flat.is_empty() { 0 } else { parameters.len() };
        let owner = (0..owned).map(|index| buckets.bucket_of(index)).collect();
        let reducer = Arc::new(world.gradient_reducer(flat, owner, wire.kind())?);
        let mut hooks = Vec::new();
        if world.communicator().carries() {
            for (index, (_, parameter)) in parameters.iter().enumerate() {
                let (reducer, fresh) = (Arc::clone(&reducer), buckets.fresh().cloned());
                let ready = move || {
                    // Into the bucket first: the reducer sends what it holds.
                    if let Some(fresh) = &fresh {
                        fresh.ready(index);
                    }
                    reducer.ready(index);
                };
                hooks.push(hooks::on_gradient_ready(parameter, Arc::new(ready))?);
            }
        }
        Ok(Self::AsTheyCome { reducer, fresh: buckets.fresh().cloned(), _hooks: hooks })
    }

    /// Call before the backward pass of this rank's last micro-batch.
    pub fn arm(&self) -> Result<()> {
        let Self::AsTheyCome { reducer, fresh, .. } = self else { return Ok(()) };
        if let Some(fresh) = fresh {
            fresh.arm();
        }
        reducer.arm()
    }

    /// Call when the buckets hold the gradients of a leaf.
    pub fn leaf_done(&mut self, leaf: usize, buckets: &GradientBuckets) -> Result<()> {
        if let Self::InOrder(tree) = self { tree.add(leaf, &buckets.list()) } else { Ok(()) }
    }

    /// Returns when the buckets hold the sums over all ranks.
    pub fn finish(&mut self, world: &World, buckets: &GradientBuckets) -> Result<()> {
        match self {
            Self::AsTheyCome { reducer, fresh, .. } => {
                if let Some(fresh) = fresh {
                    fresh.finish()?;
                }
                reducer.finish()
            }
            Self::InOrder(tree) => tree.finish(world.communicator().as_ref(), &buckets.list()),
        }
    }
}
