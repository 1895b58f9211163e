//! An encoder from outside of the room: this file and one line of the registry.

use serde::{Deserialize, Serialize};

use super::*;
use crate::encoders::{EncoderFacts, EncoderKind, NewEncoder, kind};
use crate::torch::hf::{ModelFolder, load};
use crate::torch::nn::lookup;
use crate::torch::{Init, Slot};

pub(in crate::encoders) const TOY: EncoderKind = EncoderKind {
    model_type: "toy",
    presets: &["toy-small"],
    reads_words: false,
    create: |new: &NewEncoder, pieces, params| {
        let config = ToyConfig { vocab_size: pieces, width: 4 };
        Ok(Box::new(Toy::declare(kind::overridden(&config, &new.overrides)?, params)?))
    },
    load: |folder: &mut ModelFolder, pieces, params| {
        let config: ToyConfig = load::config(folder)?;
        let notes = load::read(folder, config.slots(), (config.vocab_size, pieces), params)?;
        Ok(Box::new(Toy::get(config, notes, params)?))
    },
    size: |_| Some([1.0, 1.0]),
    flops: |_, length| Some(3.0 * length),
};

#[derive(Serialize, Deserialize)]
struct ToyConfig {
    vocab_size: i64,
    width: i64,
}

impl ToyConfig {
    fn slots(&self) -> Vec<Slot> {
        vec![Slot::new("table", &[self.vocab_size, self.width], Init::Normal { std: 1.0 })]
    }
}

struct Toy {
    config: ToyConfig,
    table: Tensor,
    facts: EncoderFacts,
}

impl Toy {
    fn declare(config: ToyConfig, params: &mut Parameters) -> crate::Result<Self> {
        params.declare_all(config.slots())?;
        Self::get(config, Vec::new(), params)
    }

    fn get(config: ToyConfig, notes: Vec<String>, params: &Parameters) -> crate::Result<Self> {
        let facts = EncoderFacts::new(config.width, notes);
        Ok(Self { table: params.handle("table")?, config, facts })
    }
}

impl Encoder for Toy {
    fn facts(&self) -> &EncoderFacts {
        &self.facts
    }

    fn encode(&self, stream: &TokenStream, _pass: &Pass) -> crate::Result<Tensor> {
        lookup(&self.table, &stream.ids)
    }

    fn config(&self) -> Value {
        kind::to_json(&self.config, "ToyModel", TOY.model_type)
    }
}

#[test]
fn it_is_built_by_the_name_of_its_preset() {
    let spec = EncoderSpec::parse("toy-small").unwrap();
    let encoder = build(&spec, 50, &mut Parameters::new(1, Device::Cpu)).unwrap();
    assert_eq!(encode(&*encoder, &documents()).size(), [14, 4]);
    let unknown = EncoderSpec::parse("toy-large").unwrap_err();
    assert!(unknown.hint().unwrap().contains("`toy-small`"));
}

#[test]
fn it_is_built_from_a_folder_by_its_model_type() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"model_type": "toy", "vocab_size": 50, "width": 3});
    let table = Tensor::arange(150, (Kind::Float, Device::Cpu)).view([50, 3]);
    let head = Tensor::zeros([2], (Kind::Float, Device::Cpu));
    hf::write_folder(dir.path(), &config, [("toy.table", &table), ("toy_head.bias", &head)])
        .unwrap();
    let spec = EncoderSpec::parse(dir.path().to_str().unwrap()).unwrap();
    let encoder = build(&spec, 50, &mut Parameters::new(1, Device::Cpu)).unwrap();
    assert_eq!(
        encode(&*encoder, &[vec![7, 1]]),
        table.index_select(0, &Tensor::from_slice(&[7i64, 1]))
    );
    assert_eq!(encoder.config()["architectures"], json!(["ToyModel"]));
    assert_eq!(encoder.facts().notes, ["in the weights, but not used: `toy_head.bias`"]);
    assert_eq!(encoder_flops(&encoder.config(), 5.0), Some(15.0));
}
