//! Building a model from a plan or a checkpoint, and saving it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::corpus::RelationSet;
use crate::recipe::{EncoderPlan, Switches};
use crate::shards::{DocumentStore, Manifest};
use crate::systems::DocumentViews;
use crate::systems::dsdocre::{DsdocreModel, ModelConfig, Part};
use crate::text::{Markers, Tokenizer, ViewOptions};
use crate::torch::Parameters;
use crate::torch::encoder::{self, BertConfig, BiLstmConfig, EncoderSpec, WordVectors, embed_projected, start_local};
use crate::train::{Checkpoint, CheckpointContent, TrainerState};
use crate::{DataError, Error, Result};

/// Standard deviation of word embeddings that start from projected word vectors: BERT's `initializer_range`.
const EMBEDDING_STD: f64 = 0.02;

/// What a checkpoint says of its model (`docre.json`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The system.
    pub system: String,
    /// Heads.
    pub model: ModelConfig,
    /// Switches it was trained with.
    pub switches: Switches,
    /// Encoder plan; the weights themselves lie in the folder.
    pub encoder: EncoderPlan,
    /// Relations in class order.
    pub relations: RelationSet,
    /// Identity of the tokenizer.
    pub tokenizer: String,
    /// Whether pairs are chosen by a ranker, and where it lies, relative to the checkpoint.
    pub ranker: Option<PathBuf>,
}

/// Where the encoder's weights start.
#[derive(Clone, Debug)]
pub enum EncoderStart {
    /// From the plan: random, word vectors, or a Hugging Face folder.
    Plan,
    /// From a checkpoint of an earlier stage.
    Checkpoint(PathBuf),
}

/// A model with what is needed to use and save it.
pub struct LoadedModel {
    /// Encoder and heads.
    pub model: DsdocreModel,
    /// What it is.
    pub description: Description,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}

/// What a new model is built from.
pub struct NewModel<'a> {
    /// The encoder.
    pub plan: &'a EncoderPlan,
    /// Its weights.
    pub start: &'a EncoderStart,
    /// The heads.
    pub part: Part,
    /// The switches.
    pub switches: &'a Switches,
    /// Seed of the starting weights.
    pub seed: u64,
    /// Where it lives.
    pub device: Device,
}

impl NewModel<'_> {
    /// Builds a model for the documents of a store.
    ///
    /// # Errors
    /// An encoder that cannot be read, or that does not fit the store's tokenizer.
    pub fn build(&self, store: &DocumentStore) -> Result<LoadedModel> {
        let manifest = store.manifest();
        let tokenizer = Tokenizer::load(&store.folder().join("tokenizer"), None)?;
        manifest.check_tokenizer(store.folder(), &tokenizer)?;
        let mut parameters = Parameters::new(self.seed, self.device);
        let spec = self.spec(&tokenizer)?;
        let encoder = encoder::build(&spec, tokenizer.vocab_size() as i64, &mut parameters)?;
        if self.is_new_preset() && self.plan.start == "local" {
            start_local(&BertConfig::from_json(&encoder.config())?, &parameters)?;
        }
        self.project_word_vectors(&tokenizer, &parameters)?;
        let config = self.config(manifest);
        let model = DsdocreModel::new(encoder, parameters, config.clone(), self.dropout())?;
        let description = Description {
            system: "dsdocre".into(),
            model: config,
            switches: self.switches.clone(),
            encoder: self.plan.clone(),
            relations: manifest.relations.clone(),
            tokenizer: tokenizer.identity().to_owned(),
            ranker: None,
        };
        Ok(LoadedModel { model, description, tokenizer })
    }

    fn dropout(&self) -> Option<f64> {
        (self.plan.dropout >= 0.0).then_some(self.plan.dropout)
    }

    fn config(&self, manifest: &Manifest) -> ModelConfig {
        let classes = if self.part == Part::Finetuner { manifest.relations.len() as i64 + 1 } else { 0 };
        ModelConfig { part: self.part, relation_width: self.switches.relation_width, classes, head_start: self.switches.head_start }
    }

    fn spec(&self, tokenizer: &Tokenizer) -> Result<EncoderSpec> {
        let folder = match self.start {
            EncoderStart::Checkpoint(folder) => folder.clone(),
            EncoderStart::Plan => match (EncoderSpec::parse(&self.plan.name)?, &self.plan.word_vectors) {
                (EncoderSpec::BiLstm { config, .. }, Some(path)) => {
                    let vectors = WordVectors::load(path, &vocabulary(tokenizer))?;
                    // No file of word vectors knows the markers: their rows are learnt.
                    let config = BiLstmConfig { trained_rows: special_rows(tokenizer), ..config };
                    return Ok(EncoderSpec::BiLstm { config, vectors: Some(vectors) });
                }
                (spec, _) => return Ok(spec),
            },
        };
        Ok(EncoderSpec::Folder(folder))
    }

    /// Whether the encoder is a preset whose weights start here.
    fn is_new_preset(&self) -> bool {
        matches!(self.start, EncoderStart::Plan) && matches!(EncoderSpec::parse(&self.plan.name), Ok(EncoderSpec::Preset { .. }))
    }

    /// A preset with word vectors starts its word embeddings from them, through a fixed random projection.
    fn project_word_vectors(&self, tokenizer: &Tokenizer, parameters: &Parameters) -> Result<()> {
        match &self.plan.word_vectors {
            Some(path) if self.is_new_preset() => {
                let vocabulary = vocabulary(tokenizer);
                let vectors = WordVectors::load(path, &vocabulary)?;
                embed_projected(parameters, &vectors, &vocabulary, EMBEDDING_STD, self.seed as i64)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Rows of the special pieces but padding.
fn special_rows(tokenizer: &Tokenizer) -> Vec<i64> {
    let special = tokenizer.special();
    let mut rows: Vec<i64> = [special.cls, special.sep].iter().chain(&special.unused).map(|&id| i64::from(id)).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// All pieces by row.
fn vocabulary(tokenizer: &Tokenizer) -> Vec<String> {
    (0..tokenizer.vocab_size()).map(|id| tokenizer.token(id as u32).unwrap_or_default()).collect()
}

impl LoadedModel {
    /// Opens a checkpoint of this program.
    ///
    /// # Errors
    /// A checkpoint of another system or part; files that are missing or changed.
    pub fn open(path: &Path, part: Part, device: Device) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let description: Description = checkpoint.description()?;
        if description.model.part != part {
            let problem = format!("holds a {:?}, but a {part:?} is needed", description.model.part);
            return Err(DataError::new(path, problem).hint("name a checkpoint of the right stage").into());
        }
        let tokenizer = Tokenizer::load(path, None)?;
        if tokenizer.identity() != description.tokenizer {
            return Err(DataError::new(path, "its tokenizer is not the one the model was trained with").into());
        }
        let mut parameters = Parameters::new(0, device);
        let encoder = encoder::build(&EncoderSpec::Folder(path.to_owned()), tokenizer.vocab_size() as i64, &mut parameters)?;
        let dropout = (description.encoder.dropout >= 0.0).then_some(description.encoder.dropout);
        let model = DsdocreModel::new(encoder, parameters, description.model.clone(), dropout)?;
        for (name, value) in checkpoint.heads()? {
            model.parameters.assign(&format!("heads.{name}"), &value)?;
        }
        Ok(Self { model, description, tokenizer })
    }

    /// Copies all weights of a checkpoint of the same shape into this model.
    ///
    /// # Errors
    /// Other names or shapes.
    pub fn restore(&self, checkpoint: &Checkpoint) -> Result<()> {
        let other = Self::open(checkpoint.path(), self.description.model.part, self.model.parameters.device())?;
        for entry in other.model.parameters.iter() {
            self.model.parameters.assign(&entry.name, &entry.tensor.detach())?;
        }
        Ok(())
    }

    /// Starts the relation layer from another stage's checkpoint (switch `transfer_bilinear`).
    ///
    /// # Errors
    /// Another width.
    pub fn transfer_relation_layer(&self, checkpoint: &Path) -> Result<()> {
        for (name, value) in Checkpoint::open(checkpoint)?.heads()? {
            if name.starts_with("relation.") {
                self.model.parameters.assign(&format!("heads.{name}"), &value)?;
            }
        }
        Ok(())
    }

    /// The longest view in pieces, if there is a limit.
    pub fn max_pieces(&self) -> Option<usize> {
        let own = self.model.encoder.max_positions().map(|limit| limit as usize);
        match (self.description.encoder.max_pieces, own) {
            (Some(asked), Some(own)) => Some(asked.min(own)),
            (asked, own) => asked.or(own),
        }
    }

    /// How documents are viewed in this model's stage.
    pub fn views(&self, seed: u64) -> DocumentViews {
        let switches = &self.description.switches;
        let unmasked = !switches.mask_padding && self.description.model.part != Part::Finetuner;
        let options = ViewOptions {
            max_pieces: self.max_pieces(),
            truncate: self.description.encoder.truncate,
            pad_to: if unmasked { self.max_pieces() } else { None },
            max_mentions: switches.max_mentions.filter(|&most| most > 0),
            markers: Markers::PerEntity,
            repeat_masked: switches.repeat_masked,
        };
        DocumentViews { pieces: self.tokenizer.special().clone(), options, seed }
    }

    /// Writes a checkpoint.
    ///
    /// # Errors
    /// I/O errors.
    pub fn save(&self, path: &Path, trainer: &TrainerState, optimizer: Vec<(String, Tensor)>, extra: Vec<(String, Vec<u8>)>) -> Result<()> {
        let mut encoder = Vec::new();
        let mut heads = Vec::new();
        for entry in self.model.parameters.iter() {
            match entry.name.strip_prefix("heads.") {
                Some(name) => heads.push((name.to_owned(), entry.tensor.shallow_clone())),
                None => encoder.push((entry.name.clone(), entry.tensor.shallow_clone())),
            }
        }
        let description = serde_json::to_value(&self.description).map_err(|error| Error::Bug(error.to_string()))?;
        let content = CheckpointContent {
            encoder_config: self.model.encoder.config(),
            encoder,
            heads,
            optimizer,
            description,
            trainer: trainer.clone(),
            tokenizer: &self.tokenizer,
            extra,
        };
        Checkpoint::write(path, &content).map(drop)
    }
}
