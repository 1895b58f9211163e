//! A run as a page in a browser: the page, its data, and who is answered.
//!
//! Not for: speaking HTTP (`server`), or drawing (`report`).

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use serde_json::json;

use super::server::{Answering, ClientLimits, WebAnswer, WebRequest, answer_all};
use super::terminal::{life, section};
use super::{RunLook, WatchedRun, gigabytes, is_well, progress, time_left};
use crate::base::{lock, say};
use crate::ranks::failure::now_ns;
use crate::report::{LiveChart, live_charts, live_page};
use crate::train::metrics::MetricLine;
use crate::{Error, Result};

/// The run is read this often at most, however many browsers ask.
const FRESH: Duration = Duration::from_secs(1);

/// Answers browsers at an address until the process is ended; `told` gets the address, with the
/// port that was chosen for port 0. The page asks for new data every so many seconds.
///
/// # Errors
/// An address that cannot be used.
pub fn serve(
    run: WatchedRun,
    address: &str,
    every_s: u64,
    told: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    let refused = |why: String| {
        Error::recipe(format!("--serve {address}: {why}"))
            .with_hint("use an address and a port, such as 127.0.0.1:8080; port 0 takes a free one")
    };
    let socket: SocketAddr = address.parse().map_err(|_| refused("is no address".into()))?;
    let listener = TcpListener::bind(socket).map_err(|error| refused(error.to_string()))?;
    let bound = listener.local_addr()?;
    if !bound.ip().is_loopback() {
        say(format!("warning: everybody who can reach {bound} can watch this run"));
    }
    told(&format!("http://{bound}/"))?;
    let site = Site::new(run, bound, every_s)?;
    let answering: Arc<Answering> = Arc::new(move |request: &WebRequest| site.answer(request));
    answer_all(&listener, ClientLimits::default(), &answering)
}

/// What is served.
struct Site {
    bound: SocketAddr,
    page: String,
    nonce: String,
    data: Mutex<SiteData>,
}

/// The run, and what was last said of it.
struct SiteData {
    run: WatchedRun,
    said: Option<(Instant, String)>,
}

impl Site {
    fn new(run: WatchedRun, bound: SocketAddr, every_s: u64) -> Result<Self> {
        let nonce = nonce()?;
        let page = live_page(&run.folder.display().to_string(), every_s.max(1), &nonce)?;
        Ok(Self { bound, page, nonce, data: Mutex::new(SiteData { run, said: None }) })
    }

    fn answer(&self, request: &WebRequest) -> WebAnswer {
        if !self.may_ask(request.host.as_deref()) {
            return WebAnswer::text(403, "this name is not that of the server\n");
        }
        match (request.method.as_str(), request.target.as_str()) {
            ("GET", "/") => WebAnswer::page(&self.page, &self.nonce),
            ("GET", "/data.json") => self.data(),
            ("GET", _) => WebAnswer::text(404, "there are / and /data.json\n"),
            _ => WebAnswer::text(405, "only GET is answered\n"),
        }
    }

    /// A page of somebody else must not read a run through the browser of who watches it: on this
    /// machine's own address, only its own names are answered.
    fn may_ask(&self, host: Option<&str>) -> bool {
        let Some(host) = host.filter(|_| self.bound.ip().is_loopback()) else { return true };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<IpAddr>().is_ok()
    }

    fn data(&self) -> WebAnswer {
        let mut data = lock(&self.data);
        if let Some((when, text)) = &data.said
            && when.elapsed() < FRESH
        {
            return WebAnswer::json(200, text);
        }
        match data.run.look() {
            Ok(look) => {
                let text = json!(PageData::of(&data.run, &look, now_ns())).to_string();
                data.said = Some((Instant::now(), text.clone()));
                WebAnswer::json(200, &text)
            }
            Err(error) => WebAnswer::json(500, &json!({ "error": error.to_string() }).to_string()),
        }
    }
}

/// A word that nobody can know beforehand: only scripts that carry it run.
fn nonce() -> Result<String> {
    let mut bytes = [0; 16];
    let refused = |_| std::io::Error::other("the system has no random numbers");
    SystemRandom::new().fill(&mut bytes).map_err(refused)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the script of the page shows. Texts are shown as text; only drawings are HTML.
#[derive(Debug, Serialize)]
struct PageData {
    said: String,
    at_work: bool,
    /// Label, value and remark of the few numbers at the top.
    tiles: Vec<[String; 3]>,
    stages: Vec<PageStage>,
    ranks: Vec<PageRank>,
    /// A drawing.
    timeline: String,
    charts: Vec<LiveChart>,
}

/// A row of the table of stages.
#[derive(Debug, Serialize)]
struct PageStage {
    stage: String,
    step: String,
    progress: Option<f64>,
    left: String,
    loss: String,
}

/// A row of the table of ranks.
#[derive(Debug, Serialize)]
struct PageRank {
    rank: usize,
    host: String,
    alive: String,
    memory: String,
    doing: String,
    well: bool,
}

impl PageData {
    fn of(run: &WatchedRun, look: &RunLook, now: u64) -> Self {
        let state = &look.state;
        let ranks = state.ranks.iter().map(|rank| PageRank {
            rank: rank.rank,
            host: rank.host.clone(),
            alive: life(rank, now),
            memory: rank.memory.map(|memory| gigabytes(memory.current as f64)).unwrap_or_default(),
            doing: section(rank),
            well: is_well(rank),
        });
        Self {
            said: state.in_one_line(),
            at_work: state.at_work(),
            tiles: state.stages.last().map(|line| tiles(line, run)).unwrap_or_default(),
            stages: state.stages.iter().map(PageStage::of).collect(),
            ranks: ranks.collect(),
            timeline: look.timeline.draw(),
            charts: live_charts(run.curves()),
        }
    }
}

impl PageStage {
    fn of(line: &MetricLine) -> Self {
        let total = line.number("total_steps");
        let total = total.map_or_else(String::new, |total| format!(" of {total}"));
        Self {
            stage: line.stage.clone(),
            step: format!("{}{total}", line.step),
            progress: progress(line),
            left: time_left(line).unwrap_or_default(),
            loss: line.loss.map(|loss| format!("{loss:.4}")).unwrap_or_default(),
        }
    }
}

fn tiles(line: &MetricLine, run: &WatchedRun) -> Vec<[String; 3]> {
    let tile = |label: &str, value: Option<String>, why: &str| {
        value.map(|value| [label.to_owned(), value, why.to_owned()])
    };
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let share = |key: &str| line.number(key).map(percent);
    let size = |key: &str| line.number(key).map(gigabytes);
    let rate = |rate: Option<f64>| rate.map(|rate| format!("{rate:.0}/s"));
    let tiles = [
        tile("documents", rate(line.documents_per_s), "over all ranks"),
        tile("tokens", rate(line.tokens_per_s), "over all ranks"),
        tile("dev F1", run.last_f1().map(percent), "when dev was judged last"),
        tile("MFU", share("mfu"), "of the devices' peak"),
        tile("compute", share("share/compute"), "of a step, on rank 0"),
        tile("host memory", size("memory/host_peak"), "peak of rank 0"),
        tile("device memory", size("memory/device_peak"), "peak of rank 0"),
    ];
    tiles.into_iter().flatten().collect()
}

#[cfg(test)]
#[path = "browser_tests.rs"]
mod tests;
