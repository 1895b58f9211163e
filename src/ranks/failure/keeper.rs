//! A small process beside each rank that outlives it: what is killed cannot say so itself.
//!
//! Under a launcher the program splits in two before it does anything. The child is the rank; the
//! parent only waits, passes signals on, and ends as the child did. Where the child was killed (out
//! of memory, `kill -9`, a crash in a library), or left in the middle of its work (a library called
//! `_exit`), the parent says so and ends with 71, which the launcher then gives as the exit code of
//! the whole job. Not for a single process, which nobody waits for, and not for ranks that hang:
//! the watchdog finds those.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use signal_hook::consts::{SIGINT, SIGKILL, SIGTERM, SIGUSR1, SIGUSR2};

use super::{Flight, flights};
use crate::Result;
use crate::ranks::Launcher;

/// The exit code of a world that lost a rank.
const RANK_LOST: u8 = 71;

/// The exit code of a run that was asked to stop.
const STOPPED: u8 = 75;

/// Codes that this program ends with itself, having said why.
const EXPLAINED: [u8; 7] = [2, 64, 65, 70, 71, 74, 75];

/// Where the child tells its run folder.
static TO_KEEPER: OnceLock<Mutex<Option<PipeWriter>>> = OnceLock::new();

/// Splits the process where a launcher started several. In the child, and without a launcher, it
/// returns `None`; in the parent, the exit code once the child has ended. `obituary` is asked what
/// to say of a rank that was lost: run folder (if it got so far), rank, and what became of it.
///
/// Must be called while the process has one thread.
///
/// # Errors
/// If the system refuses a process, a pipe or a handler.
pub fn keep(
    obituary: impl FnOnce(Option<&Path>, usize, &str) -> Option<String>,
) -> Result<Option<u8>> {
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
            watch(child, reader, &forwarded, |run, signal| obituary(run, launched.rank, signal))
                .map(Some)
        }
    }
}

/// Tells the keeper where the run lies, so that it can read the flight recorder.
pub fn name_run(run: &Path) {
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

/// Signals that have been passed on.
type Forwarded = std::sync::Arc<std::sync::atomic::AtomicBool>;

fn forward_signals(child: i32) -> Result<Forwarded> {
    let forwarded = Forwarded::default();
    for signal in [SIGINT, SIGTERM, SIGUSR1, SIGUSR2] {
        let flag = forwarded.clone();
        let pass_on = move || {
            flag.store(true, std::sync::atomic::Ordering::Relaxed);
            // SAFETY: `kill` is allowed in signal handlers.
            unsafe { libc::kill(child, signal) };
        };
        // SAFETY: the handler stores a flag and calls `kill`, both allowed there.
        unsafe { signal_hook::low_level::register(signal, pass_on) }?;
    }
    Ok(forwarded)
}

/// Waits for the child and gives the exit code.
fn watch(
    child: i32,
    mut reader: PipeReader,
    forwarded: &Forwarded,
    say: impl FnOnce(Option<&Path>, &str) -> Option<String>,
) -> Result<u8> {
    let run = await_end(child, &mut reader)?;
    let mut status = 0;
    // SAFETY: writes one int.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
    if libc::WIFEXITED(status) {
        let code = libc::WEXITSTATUS(status) as u8;
        return match run.filter(|run| left_early(code, &flights(run), child)) {
            Some(run) => Ok(lost(say(
                Some(&run),
                &format!("left with exit code {code} in the middle of its work"),
            ))),
            None => Ok(code),
        };
    }
    let signal = libc::WTERMSIG(status);
    let asked = [SIGINT, SIGTERM, SIGUSR1, SIGUSR2].contains(&signal)
        && forwarded.load(std::sync::atomic::Ordering::Relaxed);
    if asked {
        return Ok(STOPPED);
    }
    Ok(lost(say(run.as_deref(), &format!("was killed by {}", name(signal)))))
}

/// Waits until the child has ended and gives its run folder. Where it has said itself why it ends,
/// its recorder is closed before the process is gone from the system's list (a second Ctrl-C leaves
/// at once), so that no other rank takes it for lost.
fn await_end(child: i32, reader: &mut PipeReader) -> Result<Option<PathBuf>> {
    // SAFETY: zeros are a valid value of this plain structure.
    let mut end: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes one structure.
    while unsafe {
        libc::waitid(libc::P_PID, child as libc::id_t, &raw mut end, libc::WEXITED | libc::WNOWAIT)
    } == -1
    {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
    let run = named_run(reader)?;
    // SAFETY: `waitid` has filled the structure for an ended child.
    let code = unsafe { end.si_status() } as u8;
    if let Some(run) =
        run.as_ref().filter(|_| end.si_code == libc::CLD_EXITED && EXPLAINED.contains(&code))
    {
        Flight::mark_ended(&flights(run), child as u32, code);
    }
    Ok(run)
}

/// The run folder that the child has told of.
fn named_run(reader: &mut PipeReader) -> Result<Option<PathBuf>> {
    let mut run = Vec::new();
    reader.read_to_end(&mut run)?;
    Ok((!run.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(run))))
}

/// Whether a process went without ending its part in the world, with a code that says nothing of
/// it.
fn left_early(code: u8, flights: &Path, process: i32) -> bool {
    let own =
        |flight: &Flight| i64::from(flight.pid) == i64::from(process) && flight.ended.is_none();
    !EXPLAINED.contains(&code)
        && Flight::read_all(flights).is_ok_and(|flights| flights.iter().any(own))
}

/// Prints the sentence, where there is one, and gives the exit code.
fn lost(sentence: Option<String>) -> u8 {
    if let Some(sentence) = sentence {
        let _ = std::io::stderr().lock().write_all(format!("{sentence}\n").as_bytes());
    }
    RANK_LOST
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
