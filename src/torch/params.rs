//! The parameters of a model: an ordered list of named tensors whose initial values depend on
//! (seed, name) alone.

use tch::{Device, Kind, Tensor};

use super::rng::Generator;
use crate::{Error, Result};

/// Prefix of the names of all parameters that are not the encoder's.
pub const HEADS: &str = "heads.";

/// How a parameter starts (docs/systems.md, "Initial values").
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// N(0, std²).
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// U(−bound, bound).
    Uniform {
        /// Half the width of the interval.
        bound: f64,
    },
}

/// One named tensor.
#[derive(Debug)]
pub struct Parameter {
    /// Full name, such as `encoder.layer.0.attention.self.query.weight`.
    pub name: String,
    /// The value, a leaf of the autograd graph when trainable.
    pub tensor: Tensor,
    /// Whether the optimiser may change it.
    pub trainable: bool,
}

/// A parameter that is to be declared.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its full name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its initial values.
    pub init: Init,
    /// Whether it is trained.
    pub trainable: bool,
    /// Whether a checkpoint may lack it.
    pub optional: bool,
}

impl Slot {
    /// A trainable parameter that every checkpoint has.
    pub fn new(name: impl Into<String>, shape: &[i64], init: Init) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), init, trainable: true, optional: false }
    }

    /// The same, but never trained.
    pub fn frozen(self) -> Self {
        Self { trainable: false, ..self }
    }

    /// The same, but not needed in a checkpoint.
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// Parameters in the order in which they were declared.
#[derive(Debug)]
pub struct Parameters {
    seed: u64,
    device: Device,
    entries: Vec<Parameter>,
}

impl Parameters {
    /// An empty list whose later entries start from `seed`.
    pub fn new(seed: u64, device: Device) -> Self {
        Self { seed, device, entries: Vec::new() }
    }

    /// Where the parameters live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Declares a trainable parameter and returns a handle on it (a shallow clone that shares
    /// storage and gradient).
    ///
    /// # Errors
    /// If the name is taken or libtorch rejects the shape.
    pub fn declare(
        &mut self,
        name: impl Into<String>,
        shape: &[i64],
        init: Init,
    ) -> Result<Tensor> {
        self.insert(&Slot::new(name, shape, init))
    }

    /// Declares a tensor that is saved and loaded but never trained.
    ///
    /// # Errors
    /// As [`Self::declare`].
    pub fn declare_frozen(
        &mut self,
        name: impl Into<String>,
        shape: &[i64],
        init: Init,
    ) -> Result<Tensor> {
        self.insert(&Slot::new(name, shape, init).frozen())
    }

    /// Declares all of `slots`, in order.
    ///
    /// # Errors
    /// As [`Self::declare`].
    pub fn declare_all(&mut self, slots: impl IntoIterator<Item = Slot>) -> Result<()> {
        slots.into_iter().try_for_each(|slot| self.insert(&slot).map(drop))
    }

    fn insert(&mut self, slot: &Slot) -> Result<Tensor> {
        let Slot { name, shape, init, trainable, .. } = slot;
        if self.get(name).is_some() {
            return Err(Error::Bug(format!("parameter `{name}` was declared twice")));
        }
        let value = initial_value(self.seed, name, shape, *init)?.f_to_device(self.device)?;
        let tensor = value.f_set_requires_grad(*trainable)?;
        let handle = tensor.shallow_clone();
        self.entries.push(Parameter { name: name.clone(), tensor, trainable: *trainable });
        Ok(handle)
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| &entry.tensor)
    }

    /// A handle on the parameter of that name.
    ///
    /// # Errors
    /// [`Error::Bug`] for an unknown name.
    pub fn handle(&self, name: &str) -> Result<Tensor> {
        self.get(name)
            .map(Tensor::shallow_clone)
            .ok_or_else(|| Error::Bug(format!("parameter `{name}` was never declared")))
    }

    /// All parameters in order of declaration.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.entries.iter()
    }

    /// The trainable ones, in order.
    pub fn trainable(&self) -> impl Iterator<Item = &Parameter> {
        self.entries.iter().filter(|entry| entry.trainable)
    }

    /// Copies `value` into the parameter `name`.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming both shapes where they differ, or an unknown name.
    pub fn assign(&self, name: &str, value: &Tensor) -> Result<()> {
        let target = self
            .get(name)
            .ok_or_else(|| Error::recipe(format!("no parameter is called `{name}`")))?;
        if target.size() != value.size() {
            return Err(Error::recipe(format!(
                "parameter `{name}` has shape {:?}, but the file holds {:?}",
                target.size(),
                value.size()
            )));
        }
        tch::no_grad(|| target.shallow_clone().f_copy_(value))?;
        Ok(())
    }

    /// Takes the parameters of another list in, as handles on the same tensors, named `prefix` and
    /// their own names.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn adopt(&mut self, prefix: &str, other: &Self) -> Result<()> {
        for entry in &other.entries {
            let name = format!("{prefix}{}", entry.name);
            if self.get(&name).is_some() {
                return Err(Error::Bug(format!("parameter `{name}` was declared twice")));
            }
            self.entries.push(Parameter {
                name,
                tensor: entry.tensor.shallow_clone(),
                trainable: entry.trainable,
            });
        }
        Ok(())
    }

    /// Makes all parameters declared so far constants that are saved but never trained.
    pub fn freeze(&mut self) {
        self.freeze_where(|_| true);
    }

    /// The same for those with an accepted name.
    pub fn freeze_where(&mut self, accepted: impl Fn(&str) -> bool) {
        for entry in self.entries.iter_mut().filter(|entry| accepted(&entry.name)) {
            entry.trainable = false;
            let _same = entry.tensor.set_requires_grad(false);
        }
    }

    /// Puts another tensor, of any shape, in the place of a parameter and returns a handle on it;
    /// older handles no longer count.
    ///
    /// # Errors
    /// [`Error::Bug`] for an unknown name.
    pub fn replace(&mut self, name: &str, value: &Tensor) -> Result<Tensor> {
        let entry = self.entries.iter_mut().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| Error::Bug(format!("no parameter is called `{name}`")))?;
        let value = value.f_detach()?.f_to_device(self.device)?;
        entry.tensor = value.f_set_requires_grad(entry.trainable)?;
        Ok(entry.tensor.shallow_clone())
    }
}

/// Drawn on the CPU from a generator keyed by (seed, name), so that neither the device nor other
/// parameters matter.
fn initial_value(seed: u64, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    let digest =
        blake3::Hasher::new().update(&seed.to_le_bytes()).update(name.as_bytes()).finalize();
    let mut key = [0; 8];
    key.copy_from_slice(&digest.as_bytes()[..8]);
    let mut generator = Generator::new(u64::from_le_bytes(key))?;
    Ok(match init {
        Init::Zeros => Tensor::f_zeros(shape, options)?,
        Init::Ones => Tensor::f_ones(shape, options)?,
        Init::Normal { std } => generator.normal(shape)?.f_mul_scalar_(std)?,
        Init::Uniform { bound } => generator.uniform(shape, -bound, bound)?,
    })
}
