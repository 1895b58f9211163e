//! The errors of the whole library and the exit code each one ends the program with.
//!
//! Messages are lowercase fragments that name the path, the place and the value. What to do about
//! it is a separate hint, which the program prints on a line of its own.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A result of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit codes of the program, documented in `docs/operation.md`.
pub mod exit_code {
    /// A command line that cannot be parsed.
    pub const USAGE: u8 = 2;
    /// A bad recipe or option value.
    pub const RECIPE: u8 = 64;
    /// Bad input data.
    pub const DATA: u8 = 65;
    /// A bug, a number that is not finite, or an error of libtorch.
    pub const BUG: u8 = 70;
    /// A rank was lost or hangs.
    pub const RANK_LOST: u8 = 71;
    /// The disk, the network or a device failed.
    pub const IO: u8 = 74;
    /// The run stopped on request.
    pub const STOPPED: u8 = 75;
    /// What a shell reports of a program that SIGPIPE has ended.
    pub const BROKEN_PIPE: u8 = 141;
    /// Codes that the program ends with after it has said why.
    pub const EXPLAINED: [u8; 7] = [USAGE, RECIPE, DATA, BUG, RANK_LOST, IO, STOPPED];
}

/// All errors, by what the user can do about them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A recipe or an option holds a value that cannot be used (exit code 64).
    #[error("{message}")]
    Recipe {
        /// What is wrong, naming the key and the value.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// An input file breaks its format (exit code 65).
    #[error(transparent)]
    Data(Box<DataError>),
    /// The disk or the network file system failed (exit code 74). `fs-err` has put the path into
    /// the message.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A store on another machine failed or cannot be reached (exit code 74).
    #[error("{message}")]
    Remote {
        /// What failed and why, with the URL.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A peer was lost or hung (exit code 71).
    #[error("rank {rank} was lost during {operation}: {cause}")]
    RankLost {
        /// The rank that failed.
        rank: usize,
        /// The operation.
        operation: String,
        /// The cause.
        cause: String,
    },
    /// Another process has reported an error; this one ends with the same code.
    #[error("rank {rank} stopped with exit code {code}")]
    Elsewhere {
        /// The rank that reported; 0 for a process of one rank.
        rank: usize,
        /// Its exit code.
        code: u8,
    },
    /// An error of a rank other than 0, which reports it for all.
    #[error("rank {rank}: {error}")]
    OfRank {
        /// The rank.
        rank: usize,
        /// Its error.
        error: Box<Error>,
    },
    /// The run was asked to stop and can be resumed (exit code 75).
    #[error("stopped on request {place}")]
    Stopped {
        /// Where: `at step N of stage S`, or `while` it did what.
        place: String,
    },
    /// A loss or a gradient is not a finite number; no parameter was changed (exit code 70).
    #[error("the loss or the gradient of step {step} of stage `{stage}` is not finite{culprits}")]
    NonFinite {
        /// The stage.
        stage: String,
        /// The step, from 1.
        step: u64,
        /// Ranks and documents, which follow the sentence; may be empty.
        culprits: String,
    },
    /// libtorch rejected an operation (exit code 70).
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// A bug in the program (exit code 70).
    #[error("internal error: {0}")]
    Bug(String),
}

impl Error {
    /// A recipe or option error.
    pub fn recipe(message: impl Into<String>) -> Self {
        Self::Recipe { message: message.into(), hint: None }
    }

    /// Attaches a hint, if this kind of error has one.
    #[must_use]
    pub fn with_hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::Recipe { message, .. } => Self::Recipe { message, hint: Some(text.into()) },
            Self::Data(mut data) => {
                data.hint = Some(text.into());
                Self::Data(data)
            }
            other => other,
        }
    }

    /// Puts a place, such as a file or a row, before the message of a recipe error.
    #[must_use]
    pub fn in_place(self, place: &str) -> Self {
        match self {
            Self::Recipe { message, hint } => {
                Self::Recipe { message: format!("{place}: {message}"), hint }
            }
            other => other,
        }
    }

    /// Adds the file to a data error that does not name one.
    #[must_use]
    pub fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Data(mut data)
                if data.file.as_os_str().is_empty() || data.file == Path::new("shards") =>
            {
                data.file = file.to_owned();
                Self::Data(data)
            }
            Self::OfRank { rank, error } => {
                Self::OfRank { rank, error: Box::new(error.in_file(file)) }
            }
            other => other,
        }
    }

    /// What to do about it, printed after `hint: `.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Recipe { hint, .. } => hint.as_deref(),
            Self::Data(data) => data.hint.as_deref(),
            Self::Remote { hint, .. } => Some(hint),
            Self::OfRank { error, .. } => error.hint(),
            Self::Stopped { .. } => Some(
                "run the same command again with --resume, which `table`, `score` and `teach` \
                     do by themselves",
            ),
            Self::NonFinite { .. } => {
                Some("lower the learning rate, or set `non_finite = \"skip\"` for that stage")
            }
            Self::Io(error) => match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    Some("free space on that disk, then run again with --resume")
                }
                ErrorKind::ReadOnlyFilesystem => Some("name a folder that you can write to"),
                ErrorKind::PermissionDenied => {
                    Some("name a file that you can read, or a folder that you can write to")
                }
                ErrorKind::IsADirectory => Some("a file is needed here: name one in that folder"),
                _ => None,
            },
            Self::Torch(error) if is_memory(&error.to_string()) => Some(
                "use fewer ranks on a machine or a smaller tokens_per_micro_batch, then --resume",
            ),
            Self::Torch(_) | Self::Bug(_) => Some(
                "this is a bug in docre-pretrain; please report it with the command and the log",
            ),
            _ => None,
        }
    }

    /// The exit code documented in `docs/operation.md`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Recipe { .. } => exit_code::RECIPE,
            Self::Data(_) => exit_code::DATA,
            Self::NonFinite { .. } | Self::Torch(_) | Self::Bug(_) => exit_code::BUG,
            Self::RankLost { .. } => exit_code::RANK_LOST,
            Self::Io(_) | Self::Remote { .. } => exit_code::IO,
            Self::Stopped { .. } => exit_code::STOPPED,
            Self::Elsewhere { code, .. } => *code,
            Self::OfRank { error, .. } => error.exit_code(),
        }
    }
}

/// Whether libtorch has run out of memory, by its message.
fn is_memory(text: &str) -> bool {
    ["allocate memory", "out of memory", "bad_alloc"].iter().any(|part| text.contains(part))
}

/// Faults that an error lists beside the first.
const MOST_LISTED: usize = 20;

/// What is wrong with an input file, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataError {
    /// The file.
    pub file: PathBuf,
    /// The row: the index of the document (or line) in the file, from 0.
    pub row: Option<usize>,
    /// The title of the document.
    pub title: Option<String>,
    /// The field inside the document, as a path such as `vertexSet[3][0].pos`.
    pub field: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What else is wrong with the file, a line each.
    pub also: Vec<String>,
}

impl DataError {
    /// An error about a whole file.
    pub fn new(file: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self { file: file.as_ref().to_owned(), problem: problem.into(), ..Self::default() }
    }

    /// Adds the row.
    #[must_use]
    pub fn row(mut self, row: usize) -> Self {
        self.row = Some(row);
        self
    }

    /// Adds the title of the document.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Adds the field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// One error of several about the same input: the first, which lists the others up to a bound.
    pub fn listing(faults: Vec<Self>) -> Option<Self> {
        let count = faults.len();
        let mut faults = faults.into_iter();
        let mut first = faults.next()?;
        first.also.extend(faults.by_ref().take(MOST_LISTED).map(|fault| fault.to_string()));
        if count > 1 {
            first.also.push(format!("{count} faults in all"));
        }
        Some(first)
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for DataError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        if let Some(title) = &self.title {
            write!(f, ", document `{}`", shortened(title, 200))?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field `{field}`")?;
        }
        write!(f, ": {}", shortened(&self.problem, 1_000))?;
        self.also.iter().try_for_each(|line| write!(f, "\nalso: {line}"))
    }
}

/// The beginning of a text, which a broken file may have made very long.
fn shortened(text: &str, characters: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

impl std::error::Error for DataError {}

impl From<DataError> for Error {
    fn from(error: DataError) -> Self {
        Self::Data(Box::new(error))
    }
}
