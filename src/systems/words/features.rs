//! What stands beside a word's vector: which entity it belongs to (coreference id) and of which
//! type.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::WordTables;
use super::padded::{padded_rows, padded_table};
use crate::Result;
use crate::systems::on;
use crate::torch::Parameters;

/// The order in which a word's parts are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureOrder {
    /// [word; coreference; type], as in the release of the DocRED baselines.
    #[default]
    CorefType,
    /// [word; type; coreference], as in the text of HIN.
    TypeCoref,
}

/// The two tables.
#[derive(Debug)]
pub struct WordFeatures {
    coref: Tensor,
    types: Tensor,
    order: FeatureOrder,
}

impl WordFeatures {
    /// Declares both tables; each has a name, without `.weight`, rows and a width. Row 0 is "no
    /// entity".
    ///
    /// # Errors
    /// If a name is taken.
    pub fn declare(
        parameters: &mut Parameters,
        coref: (&str, i64, i64),
        types: (&str, i64, i64),
        order: FeatureOrder,
    ) -> Result<Self> {
        let mut table = |(name, rows, width)| padded_table(parameters, name, rows, width, 0);
        Ok(Self { coref: table(coref)?, types: table(types)?, order })
    }

    /// Width of both together.
    pub fn width(&self) -> i64 {
        self.coref.size()[1] + self.types.size()[1]
    }

    /// [word; coreference; type] of all words, in the order asked for; `words`: [W, d], the result
    /// [W, d + width].
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn beside(&self, words: &Tensor, tables: &WordTables) -> Result<Tensor> {
        let device = words.device();
        let coref = padded_rows(&self.coref, &on(&tables.coref, device)?, 0)?;
        let types = padded_rows(&self.types, &on(&tables.types, device)?, 0)?;
        Ok(match self.order {
            FeatureOrder::CorefType => Tensor::f_cat(&[words, &coref, &types], 1)?,
            FeatureOrder::TypeCoref => Tensor::f_cat(&[words, &types, &coref], 1)?,
        })
    }
}
