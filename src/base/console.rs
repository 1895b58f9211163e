//! Output for people: a progress bar with rate and time left on a terminal, plain lines in a log.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line to standard error, above a bar if there is one.
pub fn say(text: impl AsRef<str>) {
    let text = text.as_ref();
    if cfg!(test) {
        // The test harness captures this.
        eprintln!("{text}");
    } else {
        // A closed standard error does not end a run.
        let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
    }
}

/// A rate for people: a decimal below ten, so that a slow machine does not read as none.
pub fn brief(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// Time between lines if standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Progress of one stage. Only rank 0 prints it.
pub struct Progress {
    stage: String,
    total: u64,
    first: u64,
    bar: Option<ProgressBar>,
    lines: bool,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Progress over `total` steps, of which `done` are done already.
    pub fn new(stage: &str, total: u64, done: u64, speaks: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (speaks && terminal).then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            let style = ProgressStyle::with_template(
                "{prefix:>20} [{bar:32}] {pos}/{len} {msg} ({eta} left)",
            );
            bar.set_style(
                style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
            );
            bar.set_prefix(stage.to_owned());
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        Self {
            stage: stage.to_owned(),
            total,
            first: done,
            bar,
            lines: speaks && !terminal,
            started: now,
            last_line: now,
        }
    }

    /// Reports that `step` steps are done.
    pub fn update(&mut self, step: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            bar.set_message(message());
        } else if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let done = (step - self.first).max(1) as f64;
            let left = self.started.elapsed().as_secs_f64() / done * (self.total - step) as f64;
            say(format!(
                "{}: step {step}/{} {} ({left:.0} s left)",
                self.stage,
                self.total,
                message()
            ));
        }
    }

    /// Prints a line that stays.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("{}: {text}", self.stage)),
            None if self.lines => say(format!("{}: {text}", self.stage)),
            None => {}
        }
    }

    /// Ends the bar.
    pub fn finish(self, message: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.bar.is_some() || self.lines {
            say(format!("{}: {message} ({seconds:.0} s)", self.stage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::brief;

    #[test]
    fn a_slow_rate_does_not_read_as_none() {
        assert_eq!([0.42, 8.0, 312.4].map(brief), ["0.4", "8.0", "312"]);
    }
}
