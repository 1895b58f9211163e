//! Requests to stop or to save: signals set a flag, on which the loop acts after each step.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::base::run_files;
use crate::{Result, exit_code};

/// Flags set by signals.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    armed: Arc<OnceLock<()>>,
}

impl Signals {
    /// Handles USR1, USR2, TERM and INT: the first one asks the run to stop at the next step, a
    /// second INT ends the process at once. Until this is called, signals do what they always do.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn arm(&self) -> Result<()> {
        if self.armed.set(()).is_err() {
            return Ok(());
        }
        // The first INT arms the shutdown, so it must be registered before the flag is set.
        signal_hook::flag::register_conditional_shutdown(
            SIGINT,
            exit_code::STOPPED.into(),
            self.stop.clone(),
        )?;
        for signal in [SIGINT, SIGTERM, SIGUSR1, SIGUSR2] {
            signal_hook::flag::register(signal, self.stop.clone())?;
        }
        Ok(())
    }

    /// Whether this rank was asked to stop, by a signal or by a `STOP` file in the run folder.
    pub fn stop_requested(&self, run: &Path) -> bool {
        self.stopped() || run.join(run_files::STOP).exists()
    }

    /// Whether this rank was asked to stop by a signal.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Asks for a stop, as a signal does.
    #[cfg(test)]
    pub fn request(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Takes the request back.
    #[cfg(test)]
    pub fn withdraw(&self) {
        self.stop.store(false, Ordering::Relaxed);
    }

    /// Whether a checkpoint was asked for by a `SAVE` file.
    pub fn save_requested(&self, run: &Path) -> bool {
        run.join(run_files::SAVE).exists()
    }

    /// Removes the `SAVE` file.
    pub fn save_answered(&self, run: &Path) {
        fs_err::remove_file(run.join(run_files::SAVE)).ok();
    }
}
