//! Gradients on their way to other ranks: a slow kernel, its sum over ranks, and who reads it; and
//! the end of a rank that gives up.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::trial::Trial;
use crate::error::exit_code;
use crate::pipeline::Session;
use crate::torch::GradientBuckets;
use crate::torch::hooks::on_gradient_ready;
use crate::{Error, Result};

const ROUNDS: usize = 100;
/// How long a child that gives up may take to end.
const ABORT_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to get there.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The hidden flag of the child.
pub const ABORT_FLAG: &str = "--abort-child";

pub(super) fn checks(trial: &mut Trial, session: &Session) {
    if trial.device.is_cuda() {
        trial.that("NCCL carries gradients", |_| {
            let carries = session.world.communicator().carries();
            Ok(if carries { Ok(()) } else { Err("this world trains without NCCL".into()) })
        });
    }
    let name = format!("{ROUNDS} rounds of slow kernel, all-reduce, read");
    trial.that(name, |trial| rounds(trial, session));
}

/// Gradients whose values depend on a slow product are summed over ranks and read at once: whoever
/// does not wait reads what was there before.
fn rounds(trial: &mut Trial, session: &Session) -> Result<std::result::Result<(), String>> {
    let side = if trial.device.is_cuda() { 4096 } else { 96 };
    let scale = 1.0 / (side as f64).sqrt();
    let matrix = (trial.normal(&[side, side])? * scale).f_to_device(trial.device)?;
    let p = Tensor::f_zeros([1 << 20], (Kind::Float, trial.device))?.set_requires_grad(true);
    let buckets = GradientBuckets::new(&[("p".to_owned(), p.shallow_clone())], 1 << 20, true)?;
    let reducer = Arc::new(session.world.gradient_reducer(buckets.list(), vec![0], Kind::Float)?);
    // On a GPU a gradient is moved into its bucket before that is sent.
    let (ready, fresh) = (Arc::clone(&reducer), buckets.fresh().cloned());
    let moved = fresh.clone();
    let complete = move || {
        if let Some(moved) = &moved {
            moved.ready(0);
        }
        ready.ready(0);
    };
    let _hook = on_gradient_ready(&p, Arc::new(complete))?;
    for round in 1..=ROUNDS {
        buckets.zero()?;
        if let Some(fresh) = &fresh {
            fresh.arm();
        }
        reducer.arm()?;
        let mut slow = matrix.shallow_clone();
        for _ in 0..4 {
            slow = slow.f_matmul(&matrix)?;
        }
        // A finite number times 0, which only the product's end makes known.
        let value = slow.f_tanh()?.f_mean(Kind::Float)?.f_mul_scalar(0.0)?;
        let factor = value.f_add_scalar(round as f64)?;
        (&p * &factor).f_sum(Kind::Float)?.f_backward()?;
        if let Some(fresh) = &fresh {
            fresh.finish()?;
        }
        reducer.finish()?;
        let wanted = (round * session.world.size()) as f64;
        let read = p.grad();
        let (least, most) =
            (read.f_min()?.f_double_value(&[])?, read.f_max()?.f_double_value(&[])?);
        if (least, most) != (wanted, wanted) {
            return Ok(Err(format!("round {round} read {least} to {most}, not {wanted}")));
        }
    }
    Ok(Ok(()))
}

/// What the child does: takes the device, queues work on it, and gives up.
pub(super) fn give_up(session: &Session) -> Result<()> {
    let mut trial = Trial::new(session.device, 1);
    let started = rounds(&mut trial, session)?;
    started.map_err(Error::Bug)?;
    println!("giving up");
    std::io::stdout().flush()?;
    session.world.communicator().abort(exit_code::RANK_LOST)
}

/// Starts a child that gives up, and waits for its end.
pub(super) fn abort_of_a_child(trial: &mut Trial) {
    let name = format!("a rank that gives up ends within {} s", ABORT_LIMIT.as_secs());
    trial.that(name, |trial| {
        let device = match trial.device {
            tch::Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["selftest", "--device", &device, "--threads", "1", ABORT_FLAG])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let outcome = ends_in_time(&mut child);
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
        Ok(outcome)
    });
}

fn ends_in_time(child: &mut Child) -> std::result::Result<(), String> {
    let Some(output) = child.stdout.take() else { return Err("it has no output".into()) };
    let (told, first_line) = channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(output).read_line(&mut line);
        let _ = told.send(line);
    });
    match first_line.recv_timeout(START_LIMIT) {
        Ok(line) if line.starts_with("giving up") => {}
        Ok(_) => return Err("it ended before it could give up".into()),
        Err(_) => return Err(format!("it did not start within {} s", START_LIMIT.as_secs())),
    }
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.code() == Some(exit_code::RANK_LOST.into()) => return Ok(()),
            Ok(Some(status)) => return Err(format!("it ended with {status}")),
            Ok(None) if started.elapsed() > ABORT_LIMIT => return Err("it was still there".into()),
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.to_string()),
        }
    }
}
