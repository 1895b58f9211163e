//! What the program says of its systems: the list, and one system with its layers, settings,
//! defaults and parameter counts.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use tch::Device;

use crate::encoders::{EncoderSpec, build};
use crate::recipe::{Recipe, described_keys, recipe_schema};
use crate::systems::{Foundation, Model, Profile, Settings, System, SystemInfo, find, systems};
use crate::text::SpecialPieces;
use crate::torch::{HEADS, Parameter, Parameters};
use crate::{Error, Result};

/// What the sizes of a model depend on beside its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Rows of the vocabulary.
    pub pieces: i64,
    /// Relations.
    pub relations: usize,
}

impl Sizes {
    /// `bert-base-uncased` on DocRED.
    pub const DOCRED: Self = Self { pieces: 30_522, relations: 96 };
}

/// One system as it is described.
#[derive(Clone, Debug, Serialize)]
pub struct SystemDescription {
    /// The system.
    pub system: SystemInfo,
    /// The encoder that the sizes are for.
    pub encoder: String,
    /// Names and shapes of the layers above it.
    pub layers: Vec<(String, Vec<i64>)>,
    /// Numbers in these layers.
    pub parameters: usize,
    /// Numbers in the encoder.
    pub encoder_parameters: usize,
    /// The system's table in a recipe.
    pub settings: Vec<SettingDescription>,
}

/// A key of a system's table in a recipe.
#[derive(Clone, Debug, Serialize)]
pub struct SettingDescription {
    /// The key.
    pub key: String,
    /// What it means.
    pub meaning: String,
    /// Its value in the profiles `fixed`, `paper` and `code`.
    pub values: [Value; 3],
}

/// One line a system.
pub fn list_systems() -> String {
    let systems: Vec<SystemInfo> = systems().iter().map(|system| system.info()).collect();
    let width = systems.iter().map(|system| system.name.len()).max().unwrap_or_default();
    let line = |system: &SystemInfo| format!("{:<width$}  {}", system.name, system.about);
    systems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Everything about one system, its layers sized for `encoder` and DocRED's relations.
///
/// # Errors
/// An unknown system or encoder.
pub fn describe_system(name: &str, encoder: &str) -> Result<SystemDescription> {
    let system = find(name)?;
    let settings = system.defaults(Profile::Fixed, &toml::Table::new());
    let model = model_of(&settings, encoder, Sizes::DOCRED)?;
    let (own, below): (Vec<_>, Vec<_>) =
        model.parameters().iter().partition(|entry| entry.name.starts_with(HEADS));
    let layer =
        |entry: &&Parameter| (entry.name.trim_start_matches(HEADS).to_owned(), entry.tensor.size());
    Ok(SystemDescription {
        system: system.info(),
        encoder: encoder.to_owned(),
        layers: own.iter().map(layer).collect(),
        parameters: own.iter().map(|entry| entry.tensor.numel()).sum(),
        encoder_parameters: below.iter().map(|entry| entry.tensor.numel()).sum(),
        settings: settings_of(system)?,
    })
}

impl fmt::Display for SystemDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SystemInfo { name, about, source, table, .. } = self.system;
        writeln!(f, "{name}: {about}\nsource: {source}\n")?;
        writeln!(
            f,
            "layers above the encoder, for encoder `{}` and {} relations",
            self.encoder,
            Sizes::DOCRED.relations
        )?;
        for (name, shape) in &self.layers {
            writeln!(f, "  {name:<44} {shape:?}")?;
        }
        writeln!(
            f,
            "  {} parameters, {} in the encoder\n",
            self.parameters, self.encoder_parameters
        )?;
        writeln!(f, "[{table}]: fixed | paper | code (one value where all agree)")?;
        for SettingDescription { key, meaning, values } in &self.settings {
            writeln!(f, "  {key} = {}\n      {meaning}", profile_values(values))?;
        }
        Ok(())
    }
}

/// Values of the profiles, side by side; one where all agree.
pub(crate) fn profile_values(values: &[Value]) -> String {
    let told = |value: &Value| if value.is_null() { "–".to_owned() } else { value.to_string() };
    if values.windows(2).all(|pair| pair[0] == pair[1]) {
        return values.first().map_or_else(String::new, told);
    }
    values.iter().map(told).collect::<Vec<_>>().join(" | ")
}

/// What a model of these sizes is built on.
pub(crate) fn foundation(encoder: &str, sizes: Sizes) -> Result<Foundation> {
    let mut parameters = Parameters::new(0, Device::Cpu);
    let encoder = build(&EncoderSpec::parse(encoder)?, sizes.pieces, &mut parameters)?;
    Ok(Foundation {
        max_pieces: encoder.facts().max_positions,
        encoder,
        parameters,
        relations: sizes.relations,
        entity_types: ["ORG", "LOC", "TIME", "PER", "MISC", "NUM"].map(str::to_owned).to_vec(),
        pieces: SpecialPieces::default(),
        truncate: false,
        dropout: None,
        seed: 0,
        twin: None,
    })
}

/// A model of these sizes, with random weights.
pub(crate) fn model_of(settings: &Settings, encoder: &str, sizes: Sizes) -> Result<Box<dyn Model>> {
    let twin = settings.info().twin.then(|| foundation(encoder, sizes)).transpose()?.map(Box::new);
    settings.model(Foundation { twin, ..foundation(encoder, sizes)? })
}

/// The recipe of a system in the profiles `fixed`, `paper` and `code`.
pub(super) fn profile_recipes(system: &'static System) -> Result<[Value; 3]> {
    let recipe = |profile| {
        serde_json::to_value(Recipe::defaults(profile, system, &toml::Table::new())?)
            .map_err(|error| Error::Bug(error.to_string()))
    };
    Ok([recipe(Profile::Fixed)?, recipe(Profile::Paper)?, recipe(Profile::Code)?])
}

fn settings_of(system: &'static System) -> Result<Vec<SettingDescription>> {
    let (recipes, table) = (profile_recipes(system)?, system.info().table);
    let setting = |(key, meaning): (String, String)| {
        let values = recipes.each_ref().map(|recipe| recipe[table][&key].clone());
        SettingDescription { key, meaning, values }
    };
    Ok(described_keys(&recipe_schema(), table).into_iter().map(setting).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_describes_itself() {
        for system in systems() {
            let name = system.info().name;
            let text = describe_system(name, "mini").unwrap().to_string();
            assert!(text.contains("parameters") && list_systems().contains(name), "{text}");
            assert!(
                text.lines().filter(|line| line.starts_with("  ") && line.contains(" = ")).count()
                    > 2,
                "{text}"
            );
        }
        assert_eq!(describe_system("dsdocer", "tiny").unwrap_err().exit_code(), 64);
    }
}
