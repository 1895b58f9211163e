//! A run as a page on a terminal: stages with progress, curves, ranks. It follows the size of the
//! window; `q` ends it.
//!
//! [`TerminalPage`] makes the lines, which tests can read; [`Screen`] puts them on the terminal and
//! gives it back as it was, also where something fails. Not for: reading the run (`mod`).

use std::io::{IsTerminal, Read, Stdout, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use unicode_width::UnicodeWidthChar;

use super::curve::curve;
use super::timeline::KINDS;
use super::{RunLook, WatchedRun, gigabytes, is_well, progress, time_left};
use crate::Result;
use crate::base::brief;
use crate::ranks::failure::{RankState, now_ns};
use crate::report::StageCurves;
use crate::train::metrics::MetricLine;

/// How often keys, signals and the size of the window are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Size where the terminal does not tell.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// Columns of the names in front of bars and curves.
const NAME: usize = 20;

/// The widest progress bar.
const BAR: usize = 32;

/// Follows a run on the terminal until it ends or `q` is pressed; the last state stays.
///
/// # Errors
/// Those of [`WatchedRun::look`]; a terminal that cannot be set up.
pub fn watch_terminal(
    run: &mut WatchedRun,
    every: Duration,
    mut seen: impl FnMut(&RunLook) -> Result<()>,
) -> Result<RunLook> {
    let mut screen = Screen::open()?;
    loop {
        let look = run.look()?;
        seen(&look)?;
        if !look.state.at_work() {
            return Ok(look);
        }
        let due = Instant::now() + every;
        let mut size = (0, 0);
        while Instant::now() < due {
            if size != screen.size() {
                size = screen.size();
                let page = TerminalPage { run, look: &look, now_ns: now_ns() };
                screen.show(&page.lines(size.0, size.1))?;
            }
            if screen.asked_to_end()? {
                return Ok(look);
            }
        }
    }
}

/// The page as text.
struct TerminalPage<'a> {
    run: &'a WatchedRun,
    look: &'a RunLook,
    now_ns: u64,
}

impl TerminalPage<'_> {
    /// At most so many lines, none wider than so many columns.
    fn lines(&self, columns: usize, rows: usize) -> Vec<String> {
        let mut lines = vec![format!("{}  (q ends)", self.run.folder.display()), String::new()];
        let stages = &self.look.state.stages;
        lines.extend(stages.iter().map(|line| stage_bar(line, columns)));
        let ranks = self.rank_lines();
        if let (Some(line), Some(curves)) = (stages.last(), self.run.curves().last()) {
            lines.extend([String::new(), self.numbers(line)]);
            // The ranks get the room that they need, at most half; curves take the rest.
            let taken = lines.len() + (ranks.len() + 1).min(rows / 2);
            let room = rows.saturating_sub(taken);
            lines.extend(curve_lines(curves, columns, room));
        }
        lines.push(String::new());
        lines.extend(ranks);
        if lines.len() > rows && rows > 0 {
            let hidden = lines.len() - rows + 1;
            lines.truncate(rows - 1);
            lines.push(format!("… {hidden} more lines"));
        }
        lines.truncate(rows);
        lines.iter().map(|line| fit(line, columns)).collect()
    }

    /// The numbers of the stage that is at work.
    fn numbers(&self, line: &MetricLine) -> String {
        let size = |name: &str, key: &str| {
            let current = line.number(&format!("memory/{key}"))?;
            let peak = line.number(&format!("memory/{key}_peak")).unwrap_or(current);
            Some(format!("{name} {} (peak {})", gigabytes(current), gigabytes(peak)))
        };
        let parts = [
            line.loss.map(|loss| format!("loss {loss:.4}")),
            self.run.last_f1().map(|f1| format!("dev F1 {:.2}", 100.0 * f1)),
            line.documents_per_s.map(|rate| format!("{} documents/s", brief(rate))),
            line.tokens_per_s.map(|rate| format!("{rate:.0} tokens/s")),
            line.number("mfu").map(|share| format!("MFU {:.1} %", 100.0 * share)),
            size("host", "host"),
            size("device", "device"),
        ];
        format!("{}: {}", line.stage, parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    /// A heading and a line for each rank, those that are not well first.
    fn rank_lines(&self) -> Vec<String> {
        let mut ranks: Vec<&RankState> = self.look.state.ranks.iter().collect();
        ranks.sort_by_key(|rank| (is_well(rank), rank.rank));
        let kinds: String = KINDS.iter().map(|kind| format!("{kind:>9}")).collect();
        let heading = format!(
            "{:>5} {:<16}{:>10}{:>10}{kinds}  section",
            "rank", "machine", "sign of life", "memory"
        );
        let line = |rank: &&RankState| {
            let shares = self.look.timeline.row(rank.rank).map_or_else(String::new, |row| {
                row.shares.iter().map(|share| format!("{:>7.1} %", 100.0 * share)).collect()
            });
            let memory = rank.memory.map(|memory| gigabytes(memory.current as f64));
            let (life, memory) = (life(rank, self.now_ns), memory.unwrap_or_default());
            let (number, host, section) = (rank.rank, &rank.host, section(rank));
            format!("{number:>5} {host:<16}{life:>12}{memory:>10}{shares:<45}  {section}")
        };
        std::iter::once(heading).chain(ranks.iter().map(line)).collect()
    }
}

/// How long ago the last sign of life was.
pub(super) fn life(rank: &RankState, now_ns: u64) -> String {
    format!("{:.1} s ago", now_ns.saturating_sub(rank.alive_ns) as f64 / 1e9)
}

/// What a rank does, or how it ended.
pub(super) fn section(rank: &RankState) -> String {
    let within = rank.sections.join(" > ");
    match rank.exit_code {
        Some(code) => format!("ended with exit code {code}"),
        None if rank.at_work && within.is_empty() => "between sections".to_owned(),
        None if rank.at_work => within,
        None if within.is_empty() => "silent".to_owned(),
        None => format!("silent in {within}"),
    }
}

fn stage_bar(line: &MetricLine, columns: usize) -> String {
    let step = line.step;
    let Some(share) = progress(line) else { return format!("{:<NAME$} step {step}", line.stage) };
    let width = BAR.min(columns.saturating_sub(NAME + 30)).max(4);
    let done = (share * width as f64).floor() as usize;
    let bar = "█".repeat(done) + &"░".repeat(width - done);
    let total = line.number("total_steps").unwrap_or_default();
    let left = time_left(line).map_or_else(String::new, |left| format!(", {left}"));
    format!("{:<NAME$} {bar} {step}/{total} {:.0} %{left}", line.stage, 100.0 * share)
}

/// The curves of a stage, in the rows that there are: the loss is the tallest.
fn curve_lines(stage: &StageCurves, columns: usize, rows: usize) -> Vec<String> {
    let all = stage.curves.iter().map(|curve| curve.name.as_str());
    let tasks: Vec<&str> = all.filter(|name| name.starts_with("loss/")).collect();
    let tasks = if tasks.len() > 1 { tasks } else { Vec::new() };
    let names = ["loss", "dev/f1"].into_iter().chain(["documents_per_s", "memory/host"]);
    let known = names.chain(tasks).filter_map(|name| Some((name, stage.curve(name)?)));
    let known: Vec<(&str, &[(f64, f64)])> = known.collect();
    let tall = rows.saturating_sub(known.len().saturating_sub(1)).clamp(1, 6);
    let mut lines = Vec::new();
    for (number, (name, points)) in known.into_iter().enumerate() {
        let height = if number == 0 { tall } else { 1 };
        if lines.len() + height > rows {
            break;
        }
        let last = points.last().map_or(0.0, |point| point.1);
        let last = if name.starts_with("memory") { gigabytes(last) } else { short(last) };
        let drawn = curve(points, columns.saturating_sub(NAME + 12), height);
        for (row, text) in drawn.into_iter().enumerate() {
            let (name, last) = if row + 1 == height { (name, last.as_str()) } else { ("", "") };
            lines.push(format!("{name:<NAME$.NAME$} {last:>9}  {text}"));
        }
    }
    lines
}

/// About four digits.
fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.4}") }
}

/// A text without control characters, cut to so many columns.
fn fit(text: &str, columns: usize) -> String {
    let mut width = 0;
    let clean = text.chars().map(|letter| if letter.is_control() { '·' } else { letter });
    clean
        .take_while(|letter| {
            width += letter.width().unwrap_or(0);
            width <= columns
        })
        .collect()
}

/// The terminal, taken over until this is dropped.
struct Screen {
    out: Stdout,
    /// The settings of the keyboard as they were; `None` where keys do not come from a terminal.
    before: Option<Termios>,
    ended: Arc<AtomicBool>,
}

impl Screen {
    fn open() -> Result<Self> {
        let ended = Arc::<AtomicBool>::default();
        // A signal ends the page, so that the terminal is given back as it was.
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, ended.clone())?;
        }
        let before = keys_at_once()?;
        let mut screen = Self { out: std::io::stdout(), before, ended };
        // Another screen, without a cursor.
        screen.write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    fn size(&self) -> (usize, usize) {
        match tcgetwinsize(&self.out) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => USUAL_SIZE,
        }
    }

    fn show(&mut self, lines: &[String]) -> Result<()> {
        // Each line clears what was right of it, the last one what was below.
        self.write(&format!("\x1b[H{}\x1b[J", lines.join("\x1b[K\r\n") + "\x1b[K"))
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// Waits for a tick, or until a key is pressed.
    fn asked_to_end(&self) -> Result<bool> {
        let mut keys = [0; 16];
        let count = match &self.before {
            Some(_) => std::io::stdin().lock().read(&mut keys),
            None => {
                std::thread::sleep(TICK);
                Ok(0)
            }
        };
        let count = match count {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        Ok(keys[..count].contains(&b'q') || self.ended.load(Ordering::Relaxed))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing more can be done for a terminal that is gone.
        let _ = self.write("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Keys arrive when they are pressed, are not shown, and are waited for one tick.
fn keys_at_once() -> Result<Option<Termios>> {
    let keyboard = std::io::stdin();
    if !keyboard.is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(&keyboard).map_err(std::io::Error::from)?;
    let mut settings = before.clone();
    settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    settings.special_codes[SpecialCodeIndex::VMIN] = 0;
    // In tenths of a second.
    settings.special_codes[SpecialCodeIndex::VTIME] = (TICK.as_millis() / 100) as u8;
    tcsetattr(&keyboard, OptionalActions::Now, &settings).map_err(std::io::Error::from)?;
    Ok(Some(before))
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;
