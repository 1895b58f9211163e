//! Starts the ranks of a world on this machine, with nothing installed, and looks after them.
//!
//! The launcher serves the store at which its ranks meet (of several machines: the first one's),
//! passes on what they print, line by line, and the signals that it gets, and ends all of them if
//! one is lost. Not for what ranks do.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use super::c10d::{End, await_leave, tell_end};
use super::launcher::{LAUNCHED, Launcher};
use super::meeting::listen_at;
use super::rendezvous::{Rendezvous, parse_port};
use crate::base::{host_name, say};
use crate::torch::c10d::KeyStore;
use crate::{Error, Result, exit_code};

/// Between two looks at the ranks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long the other ranks may take to end by themselves after one was lost.
const AFTER_A_LOSS: Duration = Duration::from_secs(5);

/// How long they may take after one ended with an error that all should share.
const AFTER_AN_ERROR: Duration = Duration::from_secs(20);

/// How long the store is served for ranks of other machines once those of this one have ended.
const LAST_READERS: Duration = Duration::from_secs(10);

/// Longest piece of a line that is passed on in one.
const LONGEST_LINE: u64 = 1 << 16;

/// SignalCounts that are passed on to the ranks.
const PASSED_ON: [i32; 4] = [SIGINT, SIGTERM, SIGUSR1, SIGUSR2];

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Ranks on this machine.
    pub ranks: usize,
    /// Machines, each with as many ranks.
    pub nodes: usize,
    /// This machine among them, from 0.
    pub node_rank: usize,
    /// `HOST:PORT` of machine 0, for several machines.
    pub rendezvous: Option<String>,
    /// The verb and its arguments.
    pub words: Vec<OsString>,
}

impl Launch {
    /// Starts the ranks and returns when all have ended.
    ///
    /// # Errors
    /// A recipe error (64) if the numbers do not fit each other or the port cannot be used;
    /// [`Error::Elsewhere`] with the first rank that did not end with 0, and its code (71 for one
    /// that was killed).
    pub fn run(&self) -> Result<()> {
        let (host, port) = self.check()?;
        let signals = SignalCounts::register()?;
        let mut at = Rendezvous::of_launch(&host, port);
        let store = if self.node_rank == 0 {
            let listener = listen_at(&host, port)?;
            at.port = listener.local_addr()?.port();
            Some(KeyStore::serve(listener, &at.prefix, LAST_READERS)?)
        } else {
            None
        };
        let mut ranks = (0..self.ranks)
            .map(|local| Rank::start(self, &at, local))
            .collect::<Result<Vec<_>>>()?;
        let failed = watch(&mut ranks, &signals, &|failed| self.tell(store.as_ref(), &at, failed));
        ranks.into_iter().for_each(Rank::finish_output);
        if let Some(store) = store.filter(|_| self.nodes > 1) {
            let patience = if failed.is_none() { LAST_READERS } else { AFTER_A_LOSS };
            await_leave(&store, patience);
        }
        failed.map_or(Ok(()), |Failed { rank, code }| Err(Error::Elsewhere { rank, code }))
    }

    /// Makes sure that the numbers fit, and returns host and port of the store.
    fn check(&self) -> Result<(String, u16)> {
        let refuse = |message: String, hint: &str| Err(Error::recipe(message).with_hint(hint));
        if self.ranks == 0 || self.nodes == 0 {
            return refuse("a world needs at least one rank".into(), "use -n 1 or more");
        }
        if self.node_rank >= self.nodes {
            let (rank, nodes) = (self.node_rank, self.nodes);
            return refuse(
                format!("--node-rank {rank} of {nodes} machines"),
                "count machines from 0, and give --nodes on each of them",
            );
        }
        let around = Launcher::detect()?;
        let by_srun = around.kind == Launcher::Slurm;
        if around.world_size > 1 && !(by_srun && self.nodes > 1) {
            return refuse(
                format!(
                    "{} started {} processes, and each would launch a world of its own",
                    around.kind.name(),
                    around.world_size
                ),
                "start the verb itself, without `launch`; or `launch` once a machine, with --nodes",
            );
        }
        match (&self.rendezvous, self.nodes) {
            (None, 1) => Ok(("127.0.0.1".into(), 0)),
            (None, _) => refuse(
                format!("nothing says where the {} machines meet", self.nodes),
                "use --rendezvous HOST:PORT, with the host of --node-rank 0 and a free port there",
            ),
            (Some(text), _) => match text.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() => {
                    let host = host.trim_start_matches('[').trim_end_matches(']');
                    Ok((host.to_owned(), parse_port("the port of --rendezvous", port)?))
                }
                _ => refuse(format!("--rendezvous {text}"), "use HOST:PORT"),
            },
        }
    }

    /// Tells the ranks of all machines that one was lost.
    fn tell(&self, store: Option<&KeyStore>, at: &Rendezvous, failed: &Failed) {
        let Failed { rank, code } = *failed;
        let host = host_name();
        let sentence = format!("rank {rank} on {host} ended with exit code {code}");
        let end = End { rank, code, host, sentence };
        let reached;
        let store = match store {
            Some(store) => Some(store),
            None => {
                reached = KeyStore::connect(&at.host, at.port, &at.prefix, AFTER_A_LOSS).ok();
                reached.as_ref()
            }
        };
        // A store that is gone has taken its ranks with it.
        if let Some(store) = store {
            let _ = tell_end(store, &end);
        }
    }
}

/// The first rank that did not end with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failed {
    rank: usize,
    code: u8,
}

/// A rank that has been started.
struct Rank {
    number: usize,
    child: Child,
    ended: bool,
    output: Vec<JoinHandle<()>>,
}

impl Rank {
    fn start(launch: &Launch, at: &Rendezvous, local: usize) -> Result<Self> {
        let number = launch.node_rank * launch.ranks + local;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(&launch.words)
            .env(LAUNCHED, "1")
            .env("WORLD_SIZE", (launch.nodes * launch.ranks).to_string())
            .env("RANK", number.to_string())
            .env("LOCAL_RANK", local.to_string())
            .env("MASTER_ADDR", &at.host)
            .env("MASTER_PORT", at.port.to_string())
            // Ctrl-C at a terminal reaches its whole group, and would reach ranks twice.
            .process_group(0)
            .stdin(if number == 0 { Stdio::inherit() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: the closure only makes a system call.
        unsafe {
            command.pre_exec(|| {
                // Ranks do not outlive their launcher.
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        let mut child = command.spawn()?;
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            output.push(thread::spawn(move || pass_on(stdout, std::io::stdout())));
        }
        if let Some(stderr) = child.stderr.take() {
            output.push(thread::spawn(move || pass_on(stderr, std::io::stderr())));
        }
        Ok(Self { number, child, ended: false, output })
    }

    fn signal(&self, signal: i32) {
        if !self.ended {
            // SAFETY: a plain call; the child has not been waited for, so the number is its own.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    /// Waits for what the rank has printed. A process that it left behind may hold its output open.
    fn finish_output(self) {
        let start = Instant::now();
        for reader in self.output {
            while !reader.is_finished() && start.elapsed() < AFTER_A_LOSS {
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// Passes on whole lines, so that those of several ranks do not mix.
fn pass_on(from: impl Read, mut to: impl Write) {
    let (mut from, mut line) = (BufReader::new(from), Vec::new());
    loop {
        line.clear();
        match from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            // A reader that has gone away: the rank learns of it when it prints again.
            Ok(_) if to.write_all(&line).and_then(|()| to.flush()).is_err() => return,
            Ok(_) => {}
        }
    }
}

/// How often each signal came.
struct SignalCounts([(i32, Arc<AtomicUsize>); 4]);

impl SignalCounts {
    fn register() -> Result<Self> {
        let counted = PASSED_ON.map(|signal| (signal, Arc::<AtomicUsize>::default()));
        for (signal, count) in &counted {
            let count = count.clone();
            let came = move || {
                count.fetch_add(1, Ordering::Relaxed);
            };
            // SAFETY: the handler only counts.
            unsafe { signal_hook::low_level::register(*signal, came) }?;
        }
        Ok(Self(counted))
    }
}

/// Waits for all ranks. `tell` is called once if one was lost, or an error was not shared.
fn watch(ranks: &mut [Rank], signals: &SignalCounts, tell: &dyn Fn(&Failed)) -> Option<Failed> {
    let mut passed = [0; PASSED_ON.len()];
    let mut failed: Option<(Failed, Instant)> = None;
    let mut told = false;
    while ranks.iter().any(|rank| !rank.ended) {
        for ((signal, count), passed) in signals.0.iter().zip(&mut passed) {
            let came = count.load(Ordering::Relaxed);
            (*passed..came).for_each(|_| ranks.iter().for_each(|rank| rank.signal(*signal)));
            *passed = came;
        }
        let asked = passed.iter().any(|count| *count > 0);
        for rank in ranks.iter_mut().filter(|rank| !rank.ended) {
            let Ok(Some(status)) = rank.child.try_wait() else { continue };
            rank.ended = true;
            let code = code_of(rank.number, status, asked, failed.is_some());
            if code != 0 && failed.is_none() {
                failed = Some((Failed { rank: rank.number, code }, Instant::now()));
            }
        }
        if let Some((first, since)) = &failed {
            let lost = first.code == exit_code::RANK_LOST;
            let late = since.elapsed() > if lost { AFTER_A_LOSS } else { AFTER_AN_ERROR };
            if (lost || late) && !told {
                tell(first);
                told = true;
            }
            if late {
                ranks.iter().for_each(|rank| rank.signal(libc::SIGKILL));
            }
        }
        thread::sleep(LOOK_EVERY);
    }
    failed.map(|(failed, _)| failed)
}

/// The exit code of a rank. One that was killed cannot say so itself; `others`: another one has
/// failed before, and this one may have been ended because of it.
fn code_of(rank: usize, status: ExitStatus, asked: bool, others: bool) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) if asked && PASSED_ON.contains(&signal) => exit_code::STOPPED,
        (None, signal) => {
            if !others {
                let signal = signal.unwrap_or_default();
                say(format!("rank {rank} on {} was ended by signal {signal}", host_name()));
            }
            exit_code::RANK_LOST
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(ranks: usize, nodes: usize, node_rank: usize, rendezvous: Option<&str>) -> Launch {
        let rendezvous = rendezvous.map(ToOwned::to_owned);
        Launch { ranks, nodes, node_rank, rendezvous, words: Vec::new() }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let place = |ranks, nodes, rank, at| launch(ranks, nodes, rank, at).check();
        assert_eq!(place(4, 1, 0, None).unwrap(), ("127.0.0.1".into(), 0));
        assert_eq!(place(4, 2, 1, Some("n1:4000")).unwrap(), ("n1".into(), 4000));
        assert_eq!(place(1, 2, 0, Some("[fe80::1]:4000")).unwrap(), ("fe80::1".into(), 4000));
        for (launch, says) in [
            (launch(0, 1, 0, None), "at least one rank"),
            (launch(2, 2, 2, Some("n1:4000")), "--node-rank 2 of 2 machines"),
            (launch(2, 2, 0, None), "where the 2 machines meet"),
            (launch(2, 2, 0, Some("n1")), "--rendezvous n1"),
            (launch(2, 2, 0, Some(":9")), "--rendezvous :9"),
            (launch(2, 2, 0, Some("n1:0")), "is `0`, not a port"),
        ] {
            let error = launch.check().unwrap_err();
            assert_eq!(error.exit_code(), 64);
            assert!(error.to_string().contains(says) && error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn output_is_passed_on_in_whole_lines() {
        struct Pieces(Vec<Vec<u8>>);
        impl Write for Pieces {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut pieces = Pieces(Vec::new());
        pass_on(&b"one\ntwo two\n\xffend"[..], &mut pieces);
        assert_eq!(pieces.0, [&b"one\n"[..], b"two two\n", b"\xffend"]);
    }

    #[test]
    fn codes_of_ranks_that_were_killed() {
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        let stopped = ExitStatus::from_raw(SIGTERM);
        assert_eq!(code_of(1, ExitStatus::from_raw(65 << 8), false, false), 65);
        assert_eq!(code_of(1, killed, true, false), exit_code::RANK_LOST);
        assert_eq!(code_of(1, stopped, true, false), exit_code::STOPPED);
        assert_eq!(code_of(1, stopped, false, false), exit_code::RANK_LOST);
    }
}
