//! What the parity cases of several systems have in common. Not for: reading a case and comparing
//! with it (`parity`), nor for the cases themselves (`systems::NAME::parity`).

pub(crate) mod foundation;
pub(crate) mod pairs;
pub(crate) mod word_level;
pub(crate) mod words;

#[cfg(test)]
mod tests;
