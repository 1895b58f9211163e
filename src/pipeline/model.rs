//! Building a model from a recipe's choice of encoder or from a checkpoint, and saving it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::slice;

use serde::{Deserialize, Serialize};
use tch::{Cuda, Device, Tensor};

use super::asked_types::{TypePair, asked_types};
use crate::base::read_json;
use crate::corpus::RelationSet;
use crate::encoders;
use crate::encoders::{Encoder, EncoderSpec, WordStart, WordVectors};
use crate::hub::{self, RepoName};
use crate::pipeline::remarks;
use crate::recipe::{EncoderChoice, EncoderInit};
use crate::shards::DocumentStore;
use crate::systems::dsdocre::{DSDOCRE, DsdocreModel, DsdocreSettings, ModelKind};
use crate::systems::evidence::{EvidencePredictor, EvidenceSettings, LSTM_SP};
use crate::systems::{DocumentViews, Extractor, Foundation, Model, Settings};
use crate::text::Tokenizer;
use crate::torch::{HEADS, Parameters, hf};
use crate::train::{Checkpoint, CheckpointContent, TrainerState};
use crate::{DataError, Error, Result};

/// What a checkpoint says of its model (`docre.json`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// Which model it is; a finetuner for every system but DSDocRE.
    pub kind: ModelKind,
    /// The system with its settings.
    pub settings: Settings,
    /// The encoder; the weights themselves lie in the folder.
    pub encoder: EncoderChoice,
    /// The repository of the Hub that the encoder started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseModel>,
    /// Relations in class order.
    pub relations: RelationSet,
    /// Entity types in the order of their embedding rows.
    pub entity_types: Vec<String>,
    /// Types of head and tail of the pairs that the training documents list; empty where they list
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked_types: Vec<TypePair>,
    /// Identity of the tokenizer.
    pub tokenizer: String,
    /// Whether pairs are chosen by a ranker, and where it lies, relative to the checkpoint.
    pub ranker: Option<PathBuf>,
}

/// A repository of the Hub at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseModel {
    /// `ORG/NAME`.
    pub name: String,
    /// The commit.
    pub commit: String,
}

impl BaseModel {
    /// The repository that an encoder's name stands for, if this process has fetched it.
    fn of(encoder: &EncoderChoice) -> Option<Self> {
        let found = hub::fetched(&RepoName::parse(&encoder.name)?)?;
        Some(Self { name: found.name, commit: found.commit })
    }

    /// What a checkpoint says of its own start; nothing for another folder.
    fn of_checkpoint(folder: &Path) -> Option<Self> {
        let mut description: serde_json::Value = read_json(&folder.join("docre.json")).ok()?;
        serde_json::from_value(description.get_mut("base")?.take()).ok()
    }
}

/// A model with what is needed to use and save it.
pub struct Loaded<M> {
    /// Encoder and heads.
    pub model: M,
    /// What it is.
    pub description: Description,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}

/// DSDocRE's ranker or pre-trainer.
pub type LoadedModel = Loaded<DsdocreModel>;

/// A fine-tuned extractor of any system.
pub type LoadedExtractor = Loaded<Box<dyn Extractor>>;

/// A trained evidence predictor.
pub type LoadedEvidence = Loaded<EvidencePredictor>;

/// What a new model starts from.
#[derive(Clone, Copy)]
pub struct NewModel<'a> {
    /// The encoder.
    pub encoder: &'a EncoderChoice,
    /// The checkpoint of an earlier stage that its weights are taken from; `None`: as the recipe
    /// chose them, random, word vectors, or a Hugging Face folder.
    pub start: Option<&'a Path>,
    /// Seed of the starting weights and of the stage's draws.
    pub seed: u64,
    /// Where it lives.
    pub device: Device,
    /// Whether remarks on the encoder are printed.
    pub speaks: bool,
}

impl NewModel<'_> {
    /// DSDocRE's ranker or pre-trainer for the documents of a store.
    ///
    /// # Errors
    /// An encoder that cannot be read, or that does not fit the store's tokenizer.
    pub fn dsdocre(
        &self,
        store: &DocumentStore,
        kind: ModelKind,
        settings: &DsdocreSettings,
    ) -> Result<LoadedModel> {
        let described = Settings::of(&DSDOCRE, settings.clone());
        self.build(slice::from_ref(store), kind, described, |foundation| {
            DsdocreModel::new(foundation, kind, settings)
        })
    }

    /// An extractor for the documents of stores with the same relations and tokenizer; `ranked`
    /// says whether they carry a ranker's pairs.
    ///
    /// # Errors
    /// As [`Self::dsdocre`]; settings that cannot be built.
    pub fn extractor(
        &self,
        stores: &[DocumentStore],
        settings: &Settings,
        ranked: bool,
    ) -> Result<LoadedExtractor> {
        self.build(stores, ModelKind::Finetuner, settings.clone(), |foundation| {
            settings.build(foundation, ranked)
        })
    }

    /// An evidence predictor for the documents of stores.
    ///
    /// # Errors
    /// As [`Self::extractor`].
    pub fn evidence(
        &self,
        stores: &[DocumentStore],
        settings: &EvidenceSettings,
    ) -> Result<LoadedEvidence> {
        let described = Settings::of(&LSTM_SP, settings.clone());
        self.build(stores, ModelKind::Finetuner, described, |foundation| {
            EvidencePredictor::new(foundation, settings)
        })
    }

    /// A model of `settings`, which `build` puts on its foundation.
    fn build<M>(
        &self,
        stores: &[DocumentStore],
        kind: ModelKind,
        settings: Settings,
        build: impl FnOnce(Foundation) -> Result<M>,
    ) -> Result<Loaded<M>> {
        let Some(store) = stores.first() else {
            return Err(Error::Bug("a model was asked for without documents".into()));
        };
        let types = entity_types(stores);
        let tokenizer = Tokenizer::load(&store.folder().join("tokenizer"), None)?;
        store.manifest().check_tokenizer(store.folder(), &tokenizer)?;
        let mut foundation = self.foundation(store, &types, &tokenizer)?;
        if settings.info().twin {
            // Another seed, so that the two networks do not start as one.
            let twin = NewModel { seed: !self.seed, speaks: false, ..*self };
            foundation.twin = Some(Box::new(twin.foundation(store, &types, &tokenizer)?));
        }
        let description = Description {
            kind,
            settings,
            encoder: self.encoder.clone(),
            base: BaseModel::of(self.encoder).or_else(|| {
                let folder = self.start.unwrap_or_else(|| Path::new(&self.encoder.name));
                BaseModel::of_checkpoint(folder)
            }),
            relations: store.relations().clone(),
            entity_types: foundation.entity_types.clone(),
            asked_types: match kind {
                ModelKind::Finetuner => asked_types(stores),
                _ => Vec::new(),
            },
            tokenizer: tokenizer.identity().to_owned(),
            ranker: None,
        };
        Ok(Loaded { model: build(foundation)?, description, tokenizer })
    }

    fn foundation(
        &self,
        store: &DocumentStore,
        types: &[String],
        tokenizer: &Tokenizer,
    ) -> Result<Foundation> {
        let spec = self.spec(tokenizer)?;
        let mut stated = None;
        if let EncoderSpec::Folder(folder) = &spec {
            same_pieces(folder, store, tokenizer)?;
            stated = Tokenizer::stated_length(folder)?;
        }
        let mut parameters = Parameters::new(self.seed, self.device);
        let encoder = encoders::build(&spec, tokenizer.vocab_size() as i64, &mut parameters)?;
        if self.speaks {
            remarks::tell(self.encoder, encoder.facts(), stated);
        }
        let (relations, types) = (store.relations(), types.to_vec());
        Ok(foundation(encoder, parameters, self.encoder, relations, types, tokenizer, self.seed))
    }

    fn spec(&self, tokenizer: &Tokenizer) -> Result<EncoderSpec> {
        let mut spec = match self.start {
            Some(folder) => EncoderSpec::Folder(folder.to_owned()),
            None => EncoderSpec::parse(&self.encoder.name)?,
        };
        if let EncoderSpec::New(new) = &mut spec {
            new.local = self.encoder.start == EncoderInit::Local;
            new.padding = Some(tokenizer.special().pad.into());
            new.words = self
                .encoder
                .word_vectors
                .as_ref()
                .map(|path| word_start(path, tokenizer, self.seed))
                .transpose()?;
        }
        Ok(spec)
    }
}

/// The word vectors of a file for a tokenizer's vocabulary.
fn word_start(path: &Path, tokenizer: &Tokenizer, seed: u64) -> Result<WordStart> {
    let vocabulary: Vec<String> = (0..tokenizer.vocab_size())
        .map(|id| tokenizer.token(id as u32).unwrap_or_default())
        .collect();
    let vectors = WordVectors::load(path, &vocabulary)?;
    Ok(WordStart { vectors, vocabulary, special_rows: special_rows(tokenizer), seed })
}

fn foundation(
    encoder: Box<dyn Encoder>,
    mut parameters: Parameters,
    choice: &EncoderChoice,
    relations: &RelationSet,
    entity_types: Vec<String>,
    tokenizer: &Tokenizer,
    seed: u64,
) -> Foundation {
    if choice.frozen {
        parameters.freeze();
    }
    Foundation {
        max_pieces: choice.max_pieces.into_iter().chain(encoder.facts().max_positions).min(),
        encoder,
        parameters,
        relations: relations.len(),
        entity_types,
        pieces: tokenizer.special().clone(),
        truncate: choice.truncate,
        dropout: (choice.dropout >= 0.0).then_some(choice.dropout),
        seed,
        twin: None,
    }
}

/// Refuses an encoder whose own tokenizer numbers its pieces otherwise than that of the shards; a
/// folder without one is taken as it is.
fn same_pieces(folder: &Path, store: &DocumentStore, tokenizer: &Tokenizer) -> Result<()> {
    let own = match Tokenizer::load(folder, None) {
        Ok(own) => own,
        Err(Error::Recipe { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let pieces = own.vocab_size().max(tokenizer.vocab_size()) as u32;
    if own.kind() == tokenizer.kind() && (0..pieces).all(|id| own.token(id) == tokenizer.token(id))
    {
        return Ok(());
    }
    store.manifest().check_tokenizer(store.folder(), &own)
}

/// DocRED's entity types in the order of its release. Every model knows them.
pub const DOCRED_TYPES: [&str; 6] = ["ORG", "LOC", "TIME", "PER", "MISC", "NUM"];

/// DocRED's entity types, then any others of the stores by name.
fn entity_types(stores: &[DocumentStore]) -> Vec<String> {
    let own = stores.iter().flat_map(|store| &store.manifest().entity_types);
    let others: BTreeSet<&String> =
        own.filter(|name| !DOCRED_TYPES.contains(&name.as_str())).collect();
    DOCRED_TYPES.iter().map(|&name| name.to_owned()).chain(others.into_iter().cloned()).collect()
}

/// Rows of the special pieces but padding.
fn special_rows(tokenizer: &Tokenizer) -> Vec<i64> {
    let special = tokenizer.special();
    let mut rows: Vec<i64> =
        [special.cls, special.sep].iter().chain(&special.unused).map(|&id| i64::from(id)).collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// The model of a checkpoint, checked to be of the kind that is needed; `build` puts it on its
/// foundation. With `truncate` documents that are too long are cut, whatever the recipe said.
fn open<M: Model>(
    path: &Path,
    kind: ModelKind,
    device: Device,
    truncate: bool,
    build: impl FnOnce(Foundation, &Description) -> Result<M>,
) -> Result<Loaded<M>> {
    let checkpoint = Checkpoint::open(path)?;
    let mut description: Description = checkpoint.description()?;
    if checkpoint.path() != path {
        // A repository of the Hub, whose ranker lies with it in the cache.
        let placed = description.ranker.map(|ranker| checkpoint.path().join(ranker));
        description.ranker = placed;
    }
    let path = checkpoint.path();
    if description.kind != kind {
        let problem = format!("holds a {:?}, but a {kind:?} is needed", description.kind);
        return Err(DataError::new(path, problem)
            .hint("name a checkpoint of the right stage")
            .into());
    }
    let tokenizer = Tokenizer::load(path, None)?;
    if tokenizer.identity() != description.tokenizer {
        let problem = "its tokenizer is not the one the model was trained with";
        return Err(DataError::new(path, problem).into());
    }
    description.encoder.truncate |= truncate;
    let Description { encoder: choice, relations, entity_types, settings, .. } = &description;
    let base = || -> Result<Foundation> {
        let mut parameters = Parameters::new(0, device);
        let (spec, rows) = (EncoderSpec::Folder(path.to_owned()), tokenizer.vocab_size() as i64);
        let encoder = encoders::build(&spec, rows, &mut parameters)?;
        Ok(foundation(encoder, parameters, choice, relations, entity_types.clone(), &tokenizer, 0))
    };
    let mut foundation = base()?;
    if settings.info().twin {
        foundation.twin = Some(Box::new(base()?));
    }
    let model = build(foundation, &description)?;
    assign_heads(&checkpoint, model.parameters())?;
    Ok(Loaded { model, description, tokenizer })
}

const RESUME_HINT: &str = "resume with the settings it was started with, or name another --run-dir";

/// Refuses to go on from a checkpoint of another kind or system; its description otherwise.
///
/// # Errors
/// [`Error::Data`] naming both.
pub fn check_system(
    checkpoint: &Checkpoint,
    kind: ModelKind,
    settings: &Settings,
) -> Result<Description> {
    let other: Description = checkpoint.description()?;
    if (kind, settings.system()) == (other.kind, other.settings.system()) {
        return Ok(other);
    }
    let problem = format!(
        "holds a {:?} of `{}`, not a {kind:?} of `{}`",
        other.kind,
        other.settings.system(),
        settings.system()
    );
    Err(DataError::new(checkpoint.path(), problem).hint(RESUME_HINT).into())
}

fn assign_heads(checkpoint: &Checkpoint, parameters: &Parameters) -> Result<()> {
    checkpoint
        .heads()?
        .into_iter()
        .try_for_each(|(name, value)| parameters.assign(&format!("{HEADS}{name}"), &value))
}

impl LoadedModel {
    /// Opens a checkpoint of DSDocRE's ranker or pre-trainer.
    ///
    /// # Errors
    /// A checkpoint of another kind; files that are missing or changed.
    pub fn open(path: &Path, kind: ModelKind, device: Device) -> Result<Self> {
        open(path, kind, device, false, |foundation, description| {
            DsdocreModel::new(foundation, kind, DsdocreSettings::within(&description.settings)?)
        })
    }

    /// How documents are viewed in this model's stage.
    ///
    /// # Errors
    /// A description of another system.
    pub fn views(&self, seed: u64) -> Result<DocumentViews> {
        let choice = &self.description.encoder;
        let limits = choice
            .max_pieces
            .into_iter()
            .chain(self.model.foundation.encoder.facts().max_positions);
        let options = DsdocreSettings::within(&self.description.settings)?.view_options(
            limits.min(),
            choice.truncate,
            self.description.kind,
        );
        Ok(DocumentViews { pieces: self.tokenizer.special().clone(), options, seed })
    }
}

impl LoadedExtractor {
    /// Opens a fine-tuned checkpoint of any system.
    ///
    /// # Errors
    /// A checkpoint of another stage; files that are missing or changed.
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        Self::open_with(path, device, false, None)
    }

    /// As [`Self::open`]; with `truncate` documents that are too long are cut, whatever the recipe
    /// said; `iterations` of prediction in place of those of the checkpoint.
    ///
    /// # Errors
    /// As [`Self::open`]; iterations of a system that has none.
    pub fn open_with(
        path: &Path,
        device: Device,
        truncate: bool,
        iterations: Option<usize>,
    ) -> Result<Self> {
        open(path, ModelKind::Finetuner, device, truncate, |foundation, description| {
            if description.settings.get::<EvidenceSettings>().is_some() {
                let problem = "holds the evidence predictor `lstm-sp`, which extracts no relations";
                return Err(DataError::new(path, problem)
                    .hint("name it as --evidence, and a system of `finetune` as --checkpoint")
                    .into());
            }
            let settings = match iterations {
                None => description.settings.clone(),
                Some(number) => description.settings.with_iterations(number).ok_or_else(|| {
                    let system = description.settings.system();
                    let problem = format!("holds system `{system}` in a form without iterations");
                    DataError::new(path, problem)
                        .hint("leave out --iterations; the second stage of docre-ii has iterations")
                })?,
            };
            settings.build(foundation, description.ranker.is_some())
        })
    }
}

impl LoadedEvidence {
    /// Opens the checkpoint of an evidence predictor.
    ///
    /// # Errors
    /// A checkpoint of another system; files that are missing or changed.
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        open(path, ModelKind::Finetuner, device, false, |foundation, description| {
            let Some(settings) = description.settings.get::<EvidenceSettings>() else {
                let system = description.settings.system();
                let problem = format!("holds system `{system}`, which judges no sentences");
                return Err(DataError::new(path, problem)
                    .hint("name a checkpoint of `finetune --system lstm-sp`")
                    .into());
            };
            EvidencePredictor::new(foundation, settings)
        })
    }
}

impl<M: Model> Loaded<M> {
    /// Starts the layers that this model shares with another stage's checkpoint, named `PREFIX…`,
    /// from it.
    ///
    /// # Errors
    /// Another width; a checkpoint that shares no layer.
    pub fn transfer_heads(&self, checkpoint: &Path, prefix: &str) -> Result<()> {
        let parameters = self.model.parameters();
        let mut shared = 0;
        for (name, value) in Checkpoint::open(checkpoint)?.heads()? {
            let own = format!("{HEADS}{name}");
            if name.starts_with(prefix) && parameters.get(&own).is_some() {
                parameters.assign(&own, &value)?;
                shared += 1;
            }
        }
        if shared == 0 {
            let problem = "shares no layer with the model that starts from it";
            return Err(DataError::new(checkpoint, problem)
                .hint("start from a checkpoint of the same system")
                .into());
        }
        Ok(())
    }

    /// Copies all weights of a checkpoint of the same model into this one.
    ///
    /// # Errors
    /// Other names or shapes.
    pub fn restore(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.check_same(checkpoint)?;
        let parameters = self.model.parameters();
        for (name, value) in hf::read_folder(checkpoint.path())?.tensors {
            parameters.assign(&name, &value)?;
        }
        assign_heads(checkpoint, parameters)
    }

    fn check_same(&self, checkpoint: &Checkpoint) -> Result<()> {
        let own = &self.description;
        let other = check_system(checkpoint, own.kind, &own.settings)?;
        let problem = if own.relations != other.relations {
            format!(
                "knows {} relations that are not the {} of the shards",
                other.relations.len(),
                own.relations.len()
            )
        } else if own.tokenizer != other.tokenizer {
            "was trained with another tokenizer than the shards".to_owned()
        } else {
            return Ok(());
        };
        Err(DataError::new(checkpoint.path(), problem).hint(RESUME_HINT).into())
    }

    /// Writes a checkpoint without the optimiser, with further files.
    ///
    /// # Errors
    /// I/O errors.
    pub fn save(
        &self,
        path: &Path,
        trainer: &TrainerState,
        extra: Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        let content = CheckpointContent { extra, ..self.snapshot(trainer, Vec::new())? };
        Checkpoint::write(path, &content).map(drop)
    }

    /// What a checkpoint of this moment holds: copies of all weights and of the optimiser's tensors
    /// in host memory, so that training can go on while they are written.
    ///
    /// # Errors
    /// If libtorch rejects an operation.
    pub fn snapshot(
        &self,
        trainer: &TrainerState,
        optimizer: Vec<(String, Tensor)>,
    ) -> Result<CheckpointContent> {
        let mut encoder = Vec::new();
        let mut heads = Vec::new();
        for entry in self.model.parameters().iter() {
            match entry.name.strip_prefix(HEADS) {
                Some(name) => heads.push((name.to_owned(), host_copy(&entry.tensor)?)),
                None => encoder.push((entry.name.clone(), host_copy(&entry.tensor)?)),
            }
        }
        let optimizer = optimizer
            .into_iter()
            .map(|(name, tensor)| Ok((name, host_copy(&tensor)?)))
            .collect::<Result<_>>()?;
        if let Device::Cuda(index) = self.model.parameters().device() {
            Cuda::synchronize(i64::try_from(index).unwrap_or(i64::MAX));
        }
        Ok(CheckpointContent {
            encoder_config: self.model.encoder_config(),
            encoder,
            heads,
            optimizer,
            description: serde_json::to_value(&self.description)
                .map_err(|error| Error::Bug(error.to_string()))?,
            trainer: trainer.clone(),
            tokenizer: self.tokenizer.clone(),
            extra: Vec::new(),
        })
    }
}

/// A copy in host memory. That of a GPU is still under way, to pinned memory, which libtorch keeps
/// for the next checkpoint: a copy to other memory goes through a small buffer, part by part. It is
/// made where so much memory cannot be pinned.
fn host_copy(tensor: &Tensor) -> Result<Tensor> {
    let (value, kind) = (tensor.f_detach()?, tensor.f_kind()?);
    let copy = |under_way| value.f_to_device_(Device::Cpu, kind, under_way, true);
    match copy(tensor.device().is_cuda()) {
        Ok(copy) => Ok(copy),
        Err(_) => Ok(copy(false)?),
    }
}
