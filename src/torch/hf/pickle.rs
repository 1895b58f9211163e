//! A reader for the pickles that `torch.save` writes for a state dictionary, and for nothing else.
//!
//! A pickle is a program. The reader knows only the instructions that build numbers, strings,
//! tuples, lists, dictionaries and descriptions of tensors; every other instruction or callable is
//! refused by name. Values live in an arena and refer to each other by index, so that no nesting
//! can exhaust the stack. Memory is bounded by a constant times the length of the pickle.

use std::collections::{BTreeMap, HashMap};

use tch::Kind;

/// Axes of a tensor at most; libtorch's own limit for most operations.
const MOST_AXES: usize = 64;
/// Storage keys are running numbers in decimal.
const LONGEST_KEY_BYTES: usize = 64;

/// Where a tensor's numbers lie.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    /// Name of the record, `data/KEY`.
    pub key: String,
    pub kind: Kind,
    /// Number of elements.
    pub numel: u64,
}

/// A tensor as a view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorDescription {
    pub storage: Storage,
    pub offset: u64,
    pub size: Vec<u64>,
    pub stride: Vec<u64>,
}

/// The callables that a state dictionary needs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(Kind),
}

type Id = usize;

#[derive(Clone, Debug)]
enum Value {
    None,
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(TensorDescription),
}

/// The error is the end of a sentence about the file.
type Outcome<T> = Result<T, String>;

/// A pickle that was run.
pub(super) struct Pickled<'a> {
    unpickler: Unpickler<'a>,
    root: Id,
}

/// Runs the pickle at the start of `bytes`.
pub(super) fn run(bytes: &[u8]) -> Outcome<Pickled<'_>> {
    let mut unpickler = Unpickler {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = unpickler.run()?;
    Ok(Pickled { unpickler, root })
}

impl Pickled<'_> {
    /// Number of bytes that were read.
    pub fn length(&self) -> usize {
        self.unpickler.at
    }

    /// The tensors of the dictionary that the pickle left behind.
    pub fn tensors(&self) -> Outcome<BTreeMap<String, TensorDescription>> {
        self.unpickler.tensors(self.root)
    }

    /// The strings of the list that the pickle left behind.
    pub fn texts(&self) -> Outcome<Vec<String>> {
        let Value::List(items) = &self.unpickler.values[self.root] else {
            return Err("a list was expected".into());
        };
        items.iter().map(|&item| self.unpickler.as_text(item).map(str::to_owned)).collect()
    }

    /// The number under a key of the dictionary that the pickle left behind.
    pub fn number(&self, key: &str) -> Option<i64> {
        let Value::Dict(items) = &self.unpickler.values[self.root] else { return None };
        items.iter().find_map(|&(name, value)| match self.unpickler.values[value] {
            Value::Int(number) if self.unpickler.as_text(name) == Ok(key) => Some(number),
            _ => None,
        })
    }
}

struct Unpickler<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Unpickler<'_> {
    fn run(&mut self) -> Outcome<Id> {
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode).map_err(|problem| format!("{problem} (byte {at} of the pickle)"))?;
        }
    }

    fn step(&mut self, opcode: u8) -> Outcome<()> {
        match opcode {
            0x80 => self.byte().map(drop),  // PROTO
            0x95 => self.take(8).map(drop), // FRAME
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            } // MARK
            b'0' => self.pop().map(drop),   // POP
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Int(1)), // NEWTRUE
            0x89 => self.push(Value::Int(0)), // NEWFALSE
            b'K' | b'M' | b'J' | 0x8a => self.integer(opcode),
            b'X' | 0x8c => self.text(opcode),
            b'q' | b'r' | 0x94 => self.memorise(opcode),
            b'h' | b'j' => self.recall(opcode),
            b')' | b't' | 0x85..=0x87 => self.tuple(opcode),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b'a' | b'e' => self.append(opcode),
            b's' | b'u' => self.set_items(opcode),
            b'c' | 0x93 => self.global(opcode),
            b'Q' => self.storage(), // BINPERSID
            b'R' => self.reduce(),
            b'b' => self.build(),
            _ => Err(format!("instruction {opcode:#04x} has no place in a state dictionary")),
        }
    }

    /// The dictionary's tensors; entries that are no tensors are refused.
    fn tensors(&self, root: Id) -> Outcome<BTreeMap<String, TensorDescription>> {
        let Value::Dict(items) = &self.values[root] else {
            return Err("it does not hold a dictionary of tensors".into());
        };
        let mut named = BTreeMap::new();
        for &(key, value) in items {
            let name = self.as_text(key)?;
            let Value::Tensor(tensor) = &self.values[value] else {
                return Err(format!("entry `{name}` is not a tensor"));
            };
            // Two entries can share one long name; only distinct ones are copied, which bounds the
            // memory.
            if named.insert(name.to_owned(), tensor.clone()).is_some() {
                return Err(format!("entry `{name}` is there twice"));
            }
        }
        Ok(named)
    }

    // Bytes.

    fn take(&mut self, length: usize) -> Outcome<&[u8]> {
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len())
            .ok_or("the pickle ends early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of up to 8 bytes, without a sign.
    fn number(&mut self, width: usize) -> Outcome<u64> {
        Ok(self.take(width)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Outcome<String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("the pickle ends early")?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    // The stack.

    fn push(&mut self, value: Value) -> Outcome<()> {
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
        Ok(())
    }

    fn pop(&mut self) -> Outcome<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => Err("the stack is empty".into()),
        }
    }

    fn top(&self) -> Outcome<Id> {
        self.stack.last().copied().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_to_mark(&mut self) -> Outcome<Vec<Id>> {
        let mark = self.marks.pop().ok_or("the mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_text(&mut self) -> Outcome<String> {
        let id = self.pop()?;
        self.as_text(id).map(str::to_owned)
    }

    // Instructions.

    fn integer(&mut self, opcode: u8) -> Outcome<()> {
        let value = match opcode {
            b'K' => self.number(1)? as i64,
            b'M' => self.number(2)? as i64,
            b'J' => i64::from(self.number(4)? as u32 as i32),
            _ => {
                let width = usize::from(self.byte()?);
                if width > 8 {
                    return Err(format!("an integer of {width} bytes"));
                }
                let unused = 64 - 8 * width as u32;
                let raw = self.number(width)? as i64;
                // Shifting up and down again extends the sign of the top byte.
                if width == 0 { 0 } else { raw << unused >> unused }
            }
        };
        self.push(Value::Int(value))
    }

    fn text(&mut self, opcode: u8) -> Outcome<()> {
        let length = self.number(if opcode == b'X' { 4 } else { 1 })? as usize;
        let text = std::str::from_utf8(self.take(length)?)
            .map_err(|_| "a string is not UTF-8")?
            .to_owned();
        self.push(Value::Text(text))
    }

    fn memorise(&mut self, opcode: u8) -> Outcome<()> {
        let place = match opcode {
            b'q' => self.number(1)? as u32,
            b'r' => self.number(4)? as u32,
            _ => self.memo.len() as u32,
        };
        self.memo.insert(place, self.top()?);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Outcome<()> {
        let place = self.number(if opcode == b'h' { 1 } else { 4 })? as u32;
        let id = *self
            .memo
            .get(&place)
            .ok_or_else(|| format!("nothing was remembered under {place}"))?;
        self.stack.push(id);
        Ok(())
    }

    fn tuple(&mut self, opcode: u8) -> Outcome<()> {
        let mut items = Vec::new();
        match opcode {
            b')' => {}
            b't' => items = self.pop_to_mark()?,
            _ => {
                for _ in 0..=opcode - 0x85 {
                    items.push(self.pop()?);
                }
                items.reverse();
            }
        }
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, opcode: u8) -> Outcome<()> {
        let items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_to_mark()? };
        match self.top().map(|id| &mut self.values[id])? {
            Value::List(list) => list.extend(items),
            _ => return Err("items are appended to something that is not a list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Outcome<()> {
        let items = if opcode == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.pop_to_mark()?
        };
        let target = self.top()?;
        match &mut self.values[target] {
            Value::Dict(dict) if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return Err("entries are set on something that is not a dictionary".into()),
        }
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Outcome<()> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let name = self.pop_text()?;
            (self.pop_text()?, name)
        };
        let global = match (module.as_str(), name.as_str()) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "FloatStorage") => Global::StorageType(Kind::Float),
            ("torch", "DoubleStorage") => Global::StorageType(Kind::Double),
            ("torch", "HalfStorage") => Global::StorageType(Kind::Half),
            ("torch", "BFloat16Storage") => Global::StorageType(Kind::BFloat16),
            ("torch", "LongStorage") => Global::StorageType(Kind::Int64),
            _ => return Err(format!("it asks for `{module}.{name}`, which weights do not need")),
        };
        self.push(Value::Global(global))
    }

    /// `("storage", type, key, location, numel)`; before PyTorch 1.6 with a sixth part, which says
    /// whether the storage is a part of another and is `None` in state dictionaries.
    fn storage(&mut self) -> Outcome<()> {
        let id = self.pop()?;
        let (tag, kind, key, numel) = match *self.as_tuple(id)? {
            [tag, kind, key, _, numel] => (tag, kind, key, numel),
            [tag, kind, key, _, numel, view] if matches!(self.values[view], Value::None) => {
                (tag, kind, key, numel)
            }
            [..] => return Err("a storage with other than five parts".into()),
        };
        let Value::Global(Global::StorageType(kind)) = self.values[kind] else {
            return Err("a storage without a known type".into());
        };
        if self.as_text(tag)? != "storage" {
            return Err("a persistent object that is not a storage".into());
        }
        let key = self.as_text(key)?;
        if key.len() > LONGEST_KEY_BYTES {
            return Err(format!("a storage key of {} bytes", key.len()));
        }
        let storage = Storage { key: key.to_owned(), kind, numel: self.as_size(numel)? };
        self.push(Value::Storage(storage))
    }

    fn reduce(&mut self) -> Outcome<()> {
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let arguments = self.as_tuple(arguments)?;
        let Value::Global(global) = self.values[callable] else {
            return Err("it calls an unknown function".into());
        };
        let value = match global {
            Global::OrderedDict if arguments.is_empty() => Value::Dict(Vec::new()),
            Global::RebuildTensor => Value::Tensor(self.rebuild(arguments)?),
            Global::RebuildParameter if !arguments.is_empty() => match &self.values[arguments[0]] {
                Value::Tensor(tensor) => Value::Tensor(tensor.clone()),
                _ => return Err("a parameter without a tensor".into()),
            },
            _ => return Err(format!("it calls {global:?} with {} arguments", arguments.len())),
        };
        self.push(value)
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, …)`; what follows (gradients, hooks) is
    /// not used.
    fn rebuild(&self, arguments: &[Id]) -> Outcome<TensorDescription> {
        let [storage, offset, size, stride, ..] = *arguments else {
            return Err("a tensor with fewer than four parts".into());
        };
        let Value::Storage(storage) = &self.values[storage] else {
            return Err("a tensor without a storage".into());
        };
        let tensor = TensorDescription {
            storage: storage.clone(),
            offset: self.as_size(offset)?,
            size: self.as_sizes(size)?,
            stride: self.as_sizes(stride)?,
        };
        tensor.check()?;
        Ok(tensor)
    }

    /// Attributes of a dictionary (`_metadata`) are dropped; nothing else may have any.
    fn build(&mut self) -> Outcome<()> {
        self.pop()?;
        match self.values[self.top()?] {
            Value::Dict(_) => Ok(()),
            _ => Err("it sets attributes of something that is not a dictionary".into()),
        }
    }

    // Values.

    fn as_text(&self, id: Id) -> Outcome<&str> {
        if let Value::Text(text) = &self.values[id] {
            Ok(text)
        } else {
            Err("a string was expected".into())
        }
    }

    fn as_tuple(&self, id: Id) -> Outcome<&[Id]> {
        if let Value::Tuple(items) = &self.values[id] {
            Ok(items)
        } else {
            Err("a tuple was expected".into())
        }
    }

    fn as_size(&self, id: Id) -> Outcome<u64> {
        match self.values[id] {
            Value::Int(value) => u64::try_from(value).map_err(|_| format!("a size of {value}")),
            _ => Err("a size was expected".into()),
        }
    }

    fn as_sizes(&self, id: Id) -> Outcome<Vec<u64>> {
        let items = self.as_tuple(id)?;
        if items.len() > MOST_AXES {
            return Err(format!("a tensor with {} axes", items.len()));
        }
        items.iter().map(|&item| self.as_size(item)).collect()
    }
}

impl TensorDescription {
    /// Every element must lie inside the storage, and there may not be more elements than the
    /// storage has.
    fn check(&self) -> Outcome<()> {
        let (size, stride, numel) = (&self.size, &self.stride, self.storage.numel);
        let elements = size.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        let steps = size
            .iter()
            .zip(stride)
            .map(|(&size, &stride)| size.saturating_sub(1).checked_mul(stride));
        let last = steps.into_iter().try_fold(self.offset, |last, step| last.checked_add(step?));
        let empty = size.contains(&0);
        let fits = elements.is_some_and(|elements| elements <= numel)
            && last.is_some_and(|last| empty || last < numel)
            && self.offset <= numel;
        if size.len() == stride.len() && fits {
            return Ok(());
        }
        Err(format!(
            "a tensor of size {size:?} with strides {stride:?} from {} does not lie in its storage \
             of {numel}",
            self.offset
        ))
    }
}
