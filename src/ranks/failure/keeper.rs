//! A small process beside each rank that outlives it: a process that is killed cannot say so
//! itself.
//!
//! Under a launcher the program forks before it does anything else. The child is the rank; the
//! parent only waits, passes signals on, and ends as the child did. If the child was killed (out of
//! memory, `kill -9`, a crash in a library), or left in the middle of its work (a library called
//! `_exit`), the parent gives the verdict and ends with 71, which the launcher then returns as the
//! exit code of the whole job. Not for a single process, which nobody waits for, and not for ranks
//! that hang: the watchdog finds those.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use signal_hook::consts::{SIGINT, SIGKILL, SIGTERM, SIGUSR1, SIGUSR2};

use super::recorder::Recording;
use super::verdict::Verdict;
use crate::base::say;
use crate::ranks::launcher::Launcher;
use crate::{Result, exit_code};

/// Signals that ask a run to stop.
const REQUESTS: [i32; 4] = [SIGINT, SIGTERM, SIGUSR1, SIGUSR2];

/// Where the child tells its run folder.
static TO_KEEPER: OnceLock<Mutex<Option<PipeWriter>>> = OnceLock::new();

/// Forks if a launcher started several processes. Returns `None` in the child, and without a
/// launcher; in the parent, the exit code once the child has ended.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// If the system refuses a process, a pipe or a handler.
pub fn start_keeper() -> Result<Option<u8>> {
    let launched = Launcher::detect()?;
    if launched.world_size == 1 {
        return Ok(None);
    }
    let (reader, writer) = std::io::pipe()?;
    // SAFETY: one thread, so the child's copy of memory is whole.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        0 => {
            drop(reader);
            let _ = TO_KEEPER.set(Mutex::new(Some(writer)));
            become_rank()?;
            Ok(None)
        }
        child => {
            drop(writer);
            let forwarded = forward_signals(child)?;
            await_rank(launched.rank, child, reader, &forwarded).map(Some)
        }
    }
}

/// Tells the keeper where the run folder is, so that it can read the recordings.
pub(in crate::ranks) fn name_run(run: &Path) {
    let absolute = std::path::absolute(run).unwrap_or_else(|_| run.to_owned());
    let taken = TO_KEEPER.get().and_then(|writer| writer.lock().ok()?.take());
    if let Some(mut writer) = taken {
        // A keeper that is gone takes this process with it.
        let _ = writer.write_all(absolute.as_os_str().as_bytes());
    }
}

/// The child: a process group of its own, so that a launcher that signals the parent's group does
/// not signal twice; it ends with the parent.
fn become_rank() -> Result<()> {
    // SAFETY: plain calls with numbers.
    let refused =
        unsafe { libc::setpgid(0, 0) != 0 || libc::prctl(libc::PR_SET_PDEATHSIG, SIGKILL) != 0 };
    if refused { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
}

/// Passes requests on to the child; the flag says whether there was one.
fn forward_signals(child: i32) -> Result<Arc<AtomicBool>> {
    let forwarded = Arc::<AtomicBool>::default();
    for signal in REQUESTS {
        let flag = forwarded.clone();
        let pass_on = move || {
            flag.store(true, Ordering::Relaxed);
            // SAFETY: `kill` is allowed in signal handlers.
            unsafe { libc::kill(child, signal) };
        };
        // SAFETY: the handler stores a flag and calls `kill`, both allowed there.
        unsafe { signal_hook::low_level::register(signal, pass_on) }?;
    }
    Ok(forwarded)
}

/// Waits for the child, tells the verdict if it was lost, and returns the exit code.
fn await_rank(
    rank: usize,
    child: i32,
    mut reader: PipeReader,
    forwarded: &AtomicBool,
) -> Result<u8> {
    let run = await_end(child, &mut reader)?;
    let mut status = 0;
    // SAFETY: writes one int.
    uninterrupted(|| unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    let fate = if libc::WIFEXITED(status) {
        let code = libc::WEXITSTATUS(status) as u8;
        let unfinished = |run: &PathBuf| Recording::left_open(run, child as u32).is_some();
        if exit_code::EXPLAINED.contains(&code) || !run.as_ref().is_some_and(unfinished) {
            return Ok(code);
        }
        format!("left with exit code {code} in the middle of its work")
    } else {
        let signal = libc::WTERMSIG(status);
        if REQUESTS.contains(&signal) && forwarded.load(Ordering::Relaxed) {
            return Ok(exit_code::STOPPED);
        }
        format!("was killed by {}", name(signal))
    };
    let verdict = match &run {
        Some(run) => Verdict::on_end(run, rank, &fate),
        None => Some(Verdict::on_early_end(rank, &fate)),
    };
    if let Some(verdict) = verdict {
        say(verdict.to_string());
    }
    Ok(exit_code::RANK_LOST)
}

/// Waits until the child has ended and returns its run folder. If the child has said itself why it
/// ends, its recorder is closed before the process is gone from the system's list (a second Ctrl-C
/// leaves at once), so that no other rank takes it for lost.
fn await_end(child: i32, reader: &mut PipeReader) -> Result<Option<PathBuf>> {
    // SAFETY: zeros are a valid value of this plain structure.
    let mut end: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let (id, options) = (child as libc::id_t, libc::WEXITED | libc::WNOWAIT);
    // SAFETY: writes one structure.
    uninterrupted(|| unsafe { libc::waitid(libc::P_PID, id, &raw mut end, options) })?;
    let mut name = Vec::new();
    reader.read_to_end(&mut name)?;
    let run = (!name.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(name)));
    // SAFETY: `waitid` has filled the structure for an ended child.
    let code = unsafe { end.si_status() } as u8;
    let explained = end.si_code == libc::CLD_EXITED && exit_code::EXPLAINED.contains(&code);
    if let Some(run) = run.as_ref().filter(|_| explained)
        && let Some(recording) = Recording::left_open(run, child as u32)
    {
        recording.mark_ended(code);
    }
    Ok(run)
}

/// Repeats a call of the system that a signal interrupts.
fn uninterrupted(mut call: impl FnMut() -> i32) -> Result<()> {
    while call() == -1 {
        let error = std::io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
    Ok(())
}

fn name(signal: i32) -> String {
    let known = match signal {
        libc::SIGKILL => " (SIGKILL: out of memory, or killed by hand)",
        libc::SIGSEGV => " (SIGSEGV: a crash inside a library)",
        libc::SIGBUS => " (SIGBUS: a crash, or a mapped file on a full disk)",
        libc::SIGABRT => " (SIGABRT: a library gave up)",
        _ => "",
    };
    format!("signal {signal}{known}")
}
