//! Order and chance: batch order, random streams, and the pairs of a document that can be drawn or
//! kept. Pure functions of (seed, step, item).
//!
//! Nothing here has a state to save and nothing knows tensors or ranks; the same arguments give the
//! same item anywhere. Not for: what one system draws (its folder in `systems`), laying out pieces
//! (`text::view`), communication (`ranks`).

mod draw;
mod mixture;
mod order;
mod pairs;
mod rng;
mod row_set;
#[cfg(test)]
pub(crate) mod testing;
mod visited;
mod windows;

pub use draw::{draw_blanked, pick, place, take};
pub use mixture::SourceVisits;
pub use order::{BatchOrder, OrderHash};
pub use pairs::{
    KeptPairs, Label, Pair, UnlabelledPairs, asked_pairs, distinct_pairs, good_labels, kept_pairs,
    kept_prefix, ordered_pairs, top_asked_pairs, top_pairs,
};
pub use rng::{Purpose, Stream, rng};
pub use row_set::RowSet;
pub use visited::VisitedRows;
pub use windows::{WindowPass, Windows};
