//! Attention rows of windows that are to be averaged over layers before they are put together
//! (docs/systems.md, C.4): each row of a document in several windows by itself, and the entities of
//! all of them afterwards.

use tch::{Kind, Tensor};

use super::rows::AttentionTable;
use crate::Result;
use crate::torch::on;
use crate::torch::shim::tables::{AttentionRow, ROW_EPSILON};

/// A table whose documents in several windows give each row by itself, not yet normalised again.
#[derive(Clone, Debug)]
pub struct SingleRows {
    /// The table to ask for.
    pub table: AttentionTable,
    /// The table that was wanted.
    wanted: AttentionTable,
}

/// How the numbers of single rows become those of entities.
#[derive(Default)]
struct Joining {
    /// Row of windows that each number belongs to; 0 for those that need nothing.
    rows: Vec<i64>,
    /// Share of each such row in its entity.
    shares: Vec<f32>,
    /// Place of each number in the result.
    places: Vec<i64>,
    /// Numbers of the result.
    count: i64,
}

impl SingleRows {
    /// `None` where no document has several windows: its rows need nothing.
    pub fn of(wanted: &AttentionTable) -> Option<Self> {
        if wanted.documents.iter().all(|document| document.renormalise == 0) {
            return None;
        }
        let mut table = wanted.clone();
        let mut cells = 0;
        for document in &mut table.documents {
            if document.renormalise == 1 {
                let own =
                    document.first_row as usize..(document.first_row + document.rows) as usize;
                let single =
                    |(entity, row): (i64, &mut AttentionRow)| *row = AttentionRow { entity };
                (0..).zip(&mut table.rows[own.clone()]).for_each(single);
                table.weights[own].fill(1.0);
                (document.entities, document.renormalise) = (document.rows, 0);
            }
            document.first_cell = cells;
            cells += document.entities * document.tokens;
        }
        table.cells = cells;
        Some(Self { table, wanted: wanted.clone() })
    }

    /// What the wanted table gives, from what [`Self::table`] gave.
    ///
    /// # Errors
    /// If the numbers are not those of the table.
    pub fn joined(&self, single: &Tensor, heads: i64) -> Result<Tensor> {
        let Joining { rows, shares, places, count } = self.joining(heads);
        let device = single.device();
        let (rows, options) = (on(&rows, device)?, (Kind::Float, device));
        let sums =
            Tensor::f_zeros([shares.len() as i64], options)?.f_index_add(0, &rows, single)?;
        let mut is_row = vec![1f32; shares.len()];
        is_row[0] = 0.0;
        let (is_row, shares) = (on(&is_row, device)?, on(&shares, device)?);
        // Numbers that need nothing are divided by 1.
        let divisor = sums.f_add_scalar(ROW_EPSILON)?.f_mul(&is_row)?.f_add(&(1.0 - &is_row))?;
        let factor = shares.f_div(&divisor)?.f_index_select(0, &rows)?;
        let zeros = Tensor::f_zeros([count], options)?;
        Ok(zeros.f_index_add(0, &on(&places, device)?, &single.f_mul(&factor)?)?)
    }

    fn joining(&self, heads: i64) -> Joining {
        let mut joining = Joining { shares: vec![1.0], ..Joining::default() };
        for document in &self.wanted.documents {
            let (first, tokens) = (joining.count, document.tokens);
            joining.count += document.entities * heads * tokens;
            if document.renormalise == 0 {
                joining.rows.extend(std::iter::repeat_n(0, (joining.count - first) as usize));
                joining.places.extend(first..joining.count);
                continue;
            }
            for row in document.first_row as usize..(document.first_row + document.rows) as usize {
                for head in 0..heads {
                    let block = first + (self.wanted.rows[row].entity * heads + head) * tokens;
                    let number = joining.shares.len() as i64;
                    joining.shares.push(self.wanted.weights[row]);
                    joining.rows.extend(std::iter::repeat_n(number, tokens as usize));
                    joining.places.extend(block..block + tokens);
                }
            }
        }
        joining
    }
}
