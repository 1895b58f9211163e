//! The fine-tuned extractor on hand-made documents.

use super::{Dsdocre, DsdocreSettings};
use crate::systems::reading::testing::{batch, documents, foundation, overfit};

#[test]
fn it_learns_four_documents_by_heart() {
    let settings = DsdocreSettings { relation_width: 8, ..DsdocreSettings::default() };
    let system = Dsdocre::new(foundation(64), &settings, false).unwrap();
    let (before, after) = overfit(&system, &batch(&system, &documents(), true), 200, 1e-2);
    assert!(after < 0.1 * before, "{before} → {after}");
}
