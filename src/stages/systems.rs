//! What the program says of its systems: the list, and one system with its layers, switches, defaults and parameter counts.

use std::fmt::Write;

use serde_json::Value;
use tch::Device;

use super::model::Model;
use crate::recipe::{described_keys, recipe_schema};
use crate::systems::evidence::EvidencePredictor;
use crate::systems::{Foundation, HEADS, Profile, SYSTEMS, Settings, SystemInfo};
use crate::text::SpecialPieces;
use crate::torch::Parameters;
use crate::torch::encoder::{EncoderSpec, build};
use crate::{Error, Result};

/// Relations of DocRED, for the sizes that are printed.
const RELATIONS: usize = 96;
/// Rows of the vocabulary of `bert-base-uncased`.
const VOCABULARY: i64 = 30_522;

/// One line a system.
pub fn list_systems() -> String {
    let width = SYSTEMS.iter().map(|system| system.name.len()).max().unwrap_or_default();
    let lines: Vec<String> = SYSTEMS.iter().map(|system| format!("{:<width$}  {}", system.name, system.about)).collect();
    lines.join("\n")
}

/// Everything about one system, its layers sized for `encoder` and DocRED's relations.
///
/// # Errors
/// An unknown system or encoder.
pub fn describe_system(name: &str, encoder: &str) -> Result<String> {
    let info = SystemInfo::of(name)?;
    let mut text = format!("{}: {}\nsource: {}\n", info.name, info.about, info.source);
    write_layers(&mut text, &*model(info, encoder)?, encoder)?;
    write_settings(&mut text, info)?;
    Ok(text)
}

fn bug(error: impl std::fmt::Display) -> Error {
    Error::Bug(error.to_string())
}

fn foundation(encoder: &str) -> Result<Foundation> {
    let mut parameters = Parameters::new(0, Device::Cpu);
    let encoder = build(&EncoderSpec::parse(encoder)?, VOCABULARY, &mut parameters)?;
    Ok(Foundation {
        max_pieces: encoder.max_positions().map(|limit| limit as usize),
        encoder,
        parameters,
        relations: RELATIONS,
        entity_types: ["ORG", "LOC", "TIME", "PER", "MISC", "NUM"].map(str::to_owned).to_vec(),
        pieces: SpecialPieces::default(),
        truncate: false,
        dropout: None,
        seed: 0,
        twin: None,
    })
}

fn model(info: &SystemInfo, encoder: &str) -> Result<Box<dyn Model>> {
    let settings = Settings::of(info.name, Profile::Fixed)?;
    if let Settings::Evidence(settings) = &settings {
        return Ok(Box::new(EvidencePredictor::new(foundation(encoder)?, settings)?));
    }
    let twin = settings.needs_twin().then(|| foundation(encoder)).transpose()?.map(Box::new);
    Ok(Box::new(settings.build(Foundation { twin, ..foundation(encoder)? }, false)?))
}

fn write_layers(text: &mut String, model: &dyn Model, encoder: &str) -> Result<()> {
    let (mut own, mut below) = (0, 0);
    writeln!(text, "\nlayers above the encoder, for encoder `{encoder}` and {RELATIONS} relations").map_err(bug)?;
    for entry in model.parameters().iter() {
        let Some(name) = entry.name.strip_prefix(HEADS) else {
            below += entry.tensor.numel();
            continue;
        };
        own += entry.tensor.numel();
        writeln!(text, "  {name:<44} {:?}", entry.tensor.size()).map_err(bug)?;
    }
    writeln!(text, "  {own} parameters, {below} in the encoder").map_err(bug)
}

fn write_settings(text: &mut String, info: &SystemInfo) -> Result<()> {
    let defaults = |profile| -> Result<Value> {
        let settings = serde_json::to_value(Settings::of(info.name, profile)?).map_err(bug)?;
        Ok(settings.as_object().and_then(|tagged| tagged.values().next().cloned()).unwrap_or_default())
    };
    let columns = [Profile::Fixed, Profile::Paper, Profile::Code].map(defaults);
    writeln!(text, "\n[{}]: fixed | paper | code (one value where all agree)", info.table).map_err(bug)?;
    for (key, meaning) in described_keys(&recipe_schema(), info.table) {
        let mut values = Vec::new();
        for column in &columns {
            let value = column.as_ref().map_err(bug)?.get(&key).cloned().unwrap_or(Value::Null);
            values.push(if value.is_null() { "–".to_owned() } else { value.to_string() });
        }
        values.dedup();
        writeln!(text, "  {key} = {}\n      {meaning}", values.join(" | ")).map_err(bug)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_describes_itself() {
        for system in SYSTEMS {
            let text = describe_system(system.name, "mini").unwrap();
            assert!(text.contains("parameters") && list_systems().contains(system.name), "{text}");
            assert!(text.lines().filter(|line| line.starts_with("  ") && line.contains(" = ")).count() > 2, "{text}");
        }
        assert_eq!(describe_system("dsdocer", "tiny").unwrap_err().exit_code(), 64);
    }
}
