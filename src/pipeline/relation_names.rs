//! Encoding the names of relations, from which a classifier may start (docs/systems.md, "Initial
//! values").
//!
//! Not for: what becomes of their vectors (`systems`).

use tch::{Kind, Tensor};

use super::model::LoadedExtractor;
use super::session::Session;
use crate::corpus::Relation;
use crate::encoders::{Pass, Precision, TokenStream};
use crate::systems::{Foundation, start_from_names};
use crate::text::{SpecialPieces, Tokenizer, View, pack};
use crate::{Error, Result};

/// Starts the classifier of a new model from the names of its relations, where its settings ask for
/// that. Rank 0 encodes them for all ranks.
///
/// # Errors
/// [`Error::Recipe`] for relations without names; libtorch.
pub fn start_relations(loaded: &LoadedExtractor, session: &Session) -> Result<()> {
    let Some(weight) = loaded.model.rows_from_names() else { return Ok(()) };
    let (foundation, relations) = (loaded.model.foundation(), &loaded.description.relations);
    let table = loaded.description.settings.info().table;
    let words = relations.iter().map(|relation| words_of(relation, table));
    let words = words.collect::<Result<Vec<_>>>()?;
    let bits: Vec<u32> = session.world.on_root(|| {
        let names = encoded(foundation, &loaded.tokenizer, &words)?;
        let numbers = Vec::<f32>::try_from(names.f_contiguous()?.f_view([-1])?)?;
        Ok(numbers.into_iter().map(f32::to_bits).collect())
    })?;
    let numbers: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
    let names = Tensor::f_from_slice(&numbers)?.f_view([relations.len() as i64, -1])?;
    start_from_names(weight, loaded.model.classes(), &names, foundation.seed)
}

/// The words of a relation's name.
fn words_of(relation: &Relation, table: &str) -> Result<Vec<String>> {
    let Relation { id, name } = relation;
    let words: Vec<String> = name
        .split(|part: char| part.is_whitespace() || part == '_')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    if words.is_empty() || name == id {
        return Err(Error::recipe(format!("relation {id} has no name besides its identifier"))
            .with_hint(format!(
                "name a rel_info.json with names as data.relations (--relations of `prepare`), or \
                 set {table}.relation_start = \"random\""
            )));
    }
    Ok(words)
}

/// The mean of the states of each name's pieces; [names, d] on the CPU.
fn encoded(
    foundation: &Foundation,
    tokenizer: &Tokenizer,
    names: &[Vec<String>],
) -> Result<Tensor> {
    let (encoder, device) = (&foundation.encoder, foundation.parameters.device());
    let contextual = encoder.facts().contextual;
    let most = encoder.facts().max_positions.unwrap_or(usize::MAX);
    let mut tokenizer = tokenizer.clone();
    let special = tokenizer.special().clone();
    let views: Vec<View> = names
        .iter()
        .map(|words| view_of(words, &mut tokenizer, &special, contextual, most))
        .collect::<Result<_>>()?;
    let packed = pack(&views);
    let stream = TokenStream::new(&packed.ids, &packed.positions, &packed.offsets, device)?;
    let states = tch::no_grad(|| encoder.encode(&stream, &Pass::inference(Precision::Fp32)))?;
    let states = states.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?;
    let (before, frame) =
        if contextual { (special.prefix.len() as i64, special.frame_len() as i64) } else { (0, 0) };
    let mean = |ends: &[i64]| -> Result<Tensor> {
        let pieces = states.f_narrow(0, ends[0] + before, ends[1] - ends[0] - frame)?;
        Ok(pieces.f_mean_dim(&[0i64][..], false, Kind::Float)?)
    };
    let means = packed.offsets.windows(2).map(mean).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::f_stack(&means, 0)?)
}

/// The pieces of a name, between special pieces if the encoder reads them.
fn view_of(
    words: &[String],
    tokenizer: &mut Tokenizer,
    special: &SpecialPieces,
    contextual: bool,
    most: usize,
) -> Result<View> {
    let mut pieces = Vec::new();
    for word in words {
        pieces.extend_from_slice(tokenizer.tokenize_word(word)?);
    }
    let (prefix, suffix) =
        if contextual { (&special.prefix[..], &special.suffix[..]) } else { (&[][..], &[][..]) };
    pieces.truncate(most.saturating_sub(prefix.len() + suffix.len()));
    if pieces.is_empty() {
        return Err(Error::recipe(format!(
            "the tokenizer makes no piece of the relation name `{}`",
            words.join(" ")
        ))
        .with_hint("give the relation another name, or set relation_start = \"random\""));
    }
    Ok(View { ids: [prefix, &pieces, suffix].concat(), ..View::default() })
}
