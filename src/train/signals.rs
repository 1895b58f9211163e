//! Requests to stop or to save: signals set a flag, the loop acts on it at a step boundary.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::Result;

/// Flags set by signals.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    armed: Arc<OnceLock<()>>,
}

impl Signals {
    /// Takes over USR1, USR2, TERM and INT: the first one asks the run to stop at the next step, a
    /// second INT ends the process at once. Called where a training loop begins, which looks at the
    /// flag; until then signals do what they always do.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn arm(&self) -> Result<()> {
        if self.armed.set(()).is_err() {
            return Ok(());
        }
        // The shutdown is armed by the first INT, so it must be registered before the flag is set.
        signal_hook::flag::register_conditional_shutdown(SIGINT, 75, self.stop.clone())?;
        for signal in [SIGINT, SIGTERM, SIGUSR1, SIGUSR2] {
            signal_hook::flag::register(signal, self.stop.clone())?;
        }
        Ok(())
    }

    /// Whether this rank was asked to stop, by a signal or by a `STOP` file in the run folder.
    pub fn stop_requested(&self, run: &Path) -> bool {
        self.stop.load(Ordering::Relaxed) || run.join("STOP").exists()
    }

    /// Whether a checkpoint was asked for by a `SAVE` file.
    pub fn save_requested(&self, run: &Path) -> bool {
        run.join("SAVE").exists()
    }
}
