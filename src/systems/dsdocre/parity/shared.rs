//! What the cases of DSDocRE's three models share.

use crate::Result;
use crate::parity::{Case, WEIGHTS};
use crate::systems::cases::foundation::on_pieces;
use crate::systems::dsdocre::{DsdocreModel, DsdocreSettings, ModelKind};
use crate::systems::{DocumentViews, PackedDocuments};
use crate::text::{Markers, SpecialPieces, Tokenizer, View, ViewOptions};

pub(super) const IGNORED: i64 = -100;

/// Names of the heads in the reference, and ours.
pub(super) fn rename(name: &str) -> Option<String> {
    let own = [
        ("linear.", "relation."),
        ("bilinear.", "relation."),
        ("binaryLinear.", "align_score."),
        ("men_bilinar.", "mention."),
        ("rank_score.", "rank_score."),
        ("classify.", "classify."),
    ];
    let renamed = own.iter().find_map(|(theirs, ours)| {
        name.strip_prefix(theirs).map(|rest| format!("heads.{ours}{rest}"))
    });
    renamed.or_else(|| Some(name.to_owned()))
}

pub(super) fn settings(case: &Case) -> Result<DsdocreSettings> {
    let max_mentions = case.at("/switches/max_mentions").as_u64().unwrap_or(3) as usize;
    Ok(DsdocreSettings {
        relation_width: case.number("/dims/relation_width")?,
        max_mentions,
        ..DsdocreSettings::default()
    })
}

/// The ranker or the pre-trainer with the case's weights.
pub(super) fn model(case: &Case, kind: ModelKind, tokenizer: &Tokenizer) -> Result<DsdocreModel> {
    let foundation = on_pieces(case, tokenizer, 0)?;
    let model = DsdocreModel::new(foundation, kind, &settings(case)?)?;
    case.load_weights(&model.foundation.parameters, WEIGHTS, rename)?;
    Ok(model)
}

pub(super) fn view_options(case: &Case, padded: bool) -> Result<ViewOptions> {
    let length = case.number("/dims/encoder/max_position")? as usize;
    let max_pieces = case.at("/switches/max_len").as_u64().map_or(length, |length| length as usize);
    // The release pads to the width of its tables, whatever it cuts at.
    let width = ["doc", "doc1", "docs"]
        .into_iter()
        .find_map(|name| Some(*case.integers(name).ok()?.1.get(1)?));
    Ok(ViewOptions {
        max_pieces: Some(max_pieces),
        truncate: true,
        pad_to: padded.then(|| width.map_or(max_pieces, |width| width as usize)),
        max_mentions: settings(case)?.max_mentions(),
        markers: Markers::PerEntity,
        repeat_masked: false,
        // Pieces and positions of all variants come from the release.
        in_turn: case.has_input("XRelDet_Label"),
    })
}

/// The views of the case; `padded` reproduces the release, which attends to its padding.
pub(super) fn views(case: &Case, pieces: SpecialPieces, padded: bool) -> Result<DocumentViews> {
    Ok(DocumentViews { pieces, options: view_options(case, padded)?, seed: 0 })
}

/// The ids of a view, filled up with 0.
pub(super) fn padded_ids(view: &View, length: usize) -> impl Iterator<Item = i64> {
    let fill = std::iter::repeat_n(0, length.saturating_sub(view.ids.len()));
    view.ids.iter().map(|&id| i64::from(id)).chain(fill)
}

/// Compares ids padded to the reference's length, and mention positions as rows padded by repeating
/// the first.
pub(super) fn compare_views(
    case: &mut Case,
    views: &[View],
    rows: &[usize],
    ids: &str,
    positions: &str,
) -> Result<()> {
    let (reference, shape) = case.integers(ids)?;
    let length = shape[1] as usize;
    let ours: Vec<i64> = rows.iter().flat_map(|&row| padded_ids(&views[row], length)).collect();
    case.compare_integers(ids, &ours, &reference);
    let (reference, shape) = case.integers(positions)?;
    let (entities, width) = (shape[1] as usize, shape[2] as usize);
    let mut ours = Vec::new();
    for &row in rows {
        let mentions = &views[row].mention_positions;
        for entity in 0..entities {
            let list = mentions.get(entity).filter(|list| !list.is_empty());
            ours.extend(
                (0..width)
                    .map(|at| list.map_or(0, |list| i64::from(*list.get(at).unwrap_or(&list[0])))),
            );
        }
    }
    case.compare_integers(positions, &ours, &reference);
    Ok(())
}

pub(super) fn entity_offsets(packed: &PackedDocuments) -> Vec<i64> {
    packed.views.entity_offsets.iter().map(|&offset| offset as i64).collect()
}

/// Rows of an index tensor [items, …, width] as (item, row).
pub(super) struct IndexRows {
    pub(super) values: Vec<i64>,
    pub(super) width: usize,
    pub(super) per_item: usize,
}

impl IndexRows {
    pub(super) fn new(case: &Case, name: &str) -> Result<Self> {
        let (values, shape) = case.integers(name)?;
        let width = if shape.len() > 1 { shape[shape.len() - 1] as usize } else { 1 };
        let rows = values.len() / width;
        Ok(Self { values, width, per_item: rows / shape[0] as usize })
    }

    /// One value a row, whatever the shape.
    pub(super) fn scalars(case: &Case, name: &str) -> Result<Self> {
        let (values, shape) = case.integers(name)?;
        let per_item = values.len() / shape[0] as usize;
        Ok(Self { values, width: 1, per_item })
    }

    /// (row, item, answer) of the rows whose answer is not ignored.
    pub(super) fn asked(&self) -> impl Iterator<Item = (usize, usize, i64)> {
        let rows = self.values.iter().enumerate().filter(|(_, answer)| **answer != IGNORED);
        rows.map(|(row, &answer)| (row, row / self.per_item, answer))
    }

    pub(super) fn row(&self, row: usize) -> &[i64] {
        &self.values[row * self.width..(row + 1) * self.width]
    }
}

/// Rows of heads and tails.
pub(super) struct PairIndices(pub(super) IndexRows, IndexRows);

impl PairIndices {
    pub(super) fn new(case: &Case, heads: &str, tails: &str) -> Result<Self> {
        Ok(Self(IndexRows::new(case, heads)?, IndexRows::new(case, tails)?))
    }

    pub(super) fn row(&self, row: usize) -> Vec<(u32, u32)> {
        let pairs = self.0.row(row).iter().zip(self.1.row(row));
        pairs.map(|(&head, &tail)| (head as u32, tail as u32)).collect()
    }
}
