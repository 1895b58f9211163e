//! Prediction from files into files: chunk by chunk, each shared by the ranks, so that memory does
//! not grow with the documents and work that was stopped can go on.
//!
//! Not for: how facts are found (`finder`), or what the files hold (`outputs`).

use std::path::PathBuf;

use serde::Serialize;

use super::super::predictor::DocumentScores;
use super::super::review::{ReviewSource, UncertainPairs, uncertain_pairs};
use super::super::session::Session;
use super::finder::{FactFinder, FinderNeeds, FoundFacts};
use super::input::{InputIdentity, PredictChunk, PredictInput};
use super::options::{PredictFiles, PredictOptions};
use super::outputs::write_outputs;
use super::unfinished::{DocumentRecord, UnfinishedPredictions};
use crate::base::{Progress, say};
use crate::train::PrecisionChoice;
use crate::{Error, Result};

/// What was predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PredictReport {
    /// Documents.
    pub documents: usize,
    /// Facts in them; after the last iteration where there are several files.
    pub facts: usize,
    /// Facts that were left out because of `--min-confidence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_confidence: Option<usize>,
    /// Pairs that were written for review.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review: Option<usize>,
    /// What was predicted after each number of iterations, with `--all-iterations`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub iterations: Vec<IterationReport>,
}

/// What was predicted after some iterations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IterationReport {
    /// Their number.
    pub iterations: usize,
    /// Facts.
    pub facts: usize,
    /// Where they are.
    pub output: PathBuf,
}

/// Predicts files.
///
/// # Errors
/// If a document is bad, the checkpoint is of another stage, the ranker cannot be found, or a file
/// cannot be written; a request to stop, after which `resume` goes on.
pub fn predict_files(
    options: &PredictOptions,
    files: &PredictFiles,
    session: &Session,
) -> Result<PredictReport> {
    files.band()?;
    let needs = FinderNeeds {
        iterations: options.iterations,
        review: files.review.is_some(),
        speaks: session.is_root(),
    };
    if !files.all_iterations {
        let finder = FactFinder::open(options, needs, session)?;
        let (report, work) =
            PredictJob { options, files, iterations: None, session }.run(finder)?;
        session.world.on_root(|| work.map_or(Ok(()), UnfinishedPredictions::remove))?;
        return Ok(report);
    }
    let first = FinderNeeds { iterations: options.iterations.or(Some(0)), ..needs };
    let most = options.iterations.or(FactFinder::open(options, first, session)?.iterations());
    let (mut report, mut finished) = (PredictReport::default(), Vec::new());
    // Without iterations, opening refuses a number of them.
    for number in 0..=most.unwrap_or(0) {
        let needs = FinderNeeds { iterations: Some(number), speaks: false, ..needs };
        let finder = FactFinder::open(options, needs, session)?;
        let files = &files.numbered(number);
        let job = PredictJob { options, files, iterations: Some(number), session };
        let (last, work) = job.run(finder)?;
        finished.extend(work);
        let output = files.output.clone();
        let iteration = IterationReport { iterations: number, facts: last.facts, output };
        report = PredictReport { iterations: report.iterations, ..last };
        report.iterations.push(iteration);
    }
    // All at the end, so that --resume finds the files that were finished before it.
    session.world.on_root(|| finished.into_iter().try_for_each(UnfinishedPredictions::remove))?;
    Ok(report)
}

/// What makes two predictions the same.
#[derive(Serialize)]
struct PredictIdentity<'a> {
    version: &'static str,
    options: &'a PredictOptions,
    models: Vec<String>,
    input: Option<Vec<InputIdentity>>,
    precision: String,
    iterations: Option<usize>,
    scores: bool,
    review: Option<(Vec<f64>, Option<usize>)>,
}

/// A prediction with one number of iterations.
struct PredictJob<'a> {
    options: &'a PredictOptions,
    files: &'a PredictFiles,
    iterations: Option<usize>,
    session: &'a Session,
}

impl PredictJob<'_> {
    /// Does the work, or the rest of it, and writes the files. Rank 0 also gets what was kept.
    fn run(
        &self,
        mut finder: FactFinder,
    ) -> Result<(PredictReport, Option<UnfinishedPredictions>)> {
        let Self { options, files, session, .. } = *self;
        let _section = session.world.watchdog().unbounded_section("predicting");
        let input = self.open(&finder)?;
        // A pipe is read once, so its documents are not counted first.
        let total = if input.is_lasting() { Some(input.count(session)) } else { None };
        let total = session.world.agree(total.transpose())?;
        let mut work = None;
        let done = session.world.on_root(|| {
            let task = self.identity(&finder, &input)?;
            let begun = UnfinishedPredictions::begin(&files.output, &task, files.resume)?;
            Ok(work.insert(begun).done())
        })?;
        let mut progress =
            Progress::new("predict", total.unwrap_or(0) as u64, done as u64, session.is_root());
        let mut tell = |now: usize| {
            if let Some(total) = total {
                progress.update(total.min(now) as u64, String::new);
            }
        };
        let rest = self.rest(&input, &mut finder, done, &mut work, &mut tell);
        if rest.is_err() {
            // A folder in which nothing is done is of no use.
            let empty = work.take_if(|work| work.done() == 0);
            empty.map_or(Ok(()), UnfinishedPredictions::remove)?;
        }
        let documents = rest?;
        let written = session.world.on_root(|| match &work {
            Some(work) => write_outputs(&finder, files, work, session),
            None => Err(Error::Bug("rank 0 has kept nothing".into())),
        })?;
        progress.finish(&format!("{} facts in {documents} documents", written.facts));
        finder.tell_doubts(session)?;
        if let Some(least) = options.min_confidence.filter(|_| session.is_root()) {
            let below = written.below;
            say(format!("{below} facts with a calibrated probability below {least} are left out"));
        }
        let report = PredictReport {
            documents,
            facts: written.facts,
            below_confidence: options.min_confidence.map(|_| written.below),
            review: written.review,
            iterations: Vec::new(),
        };
        Ok((report, work))
    }

    fn open(&self, finder: &FactFinder) -> Result<PredictInput> {
        let files = self.files;
        let with_words = files.review.is_some() || finder.needs_words();
        let tokenizer = finder.tokenizer();
        let input = PredictInput::open(&files.input, files.format, with_words, tokenizer)?;
        if files.resume && !input.is_lasting() {
            return Err(Error::recipe("--resume needs an input that can be read again")
                .with_hint("write the documents to a file first"));
        }
        Ok(input)
    }

    /// Predicts the documents behind the first `done`, chunk by chunk, and gives the number of all.
    /// `tell` hears how many are done.
    fn rest(
        &self,
        input: &PredictInput,
        finder: &mut FactFinder,
        done: usize,
        work: &mut Option<UnfinishedPredictions>,
        tell: &mut dyn FnMut(usize),
    ) -> Result<usize> {
        let mut now = done;
        // Whether an error comes from a chunk: all ranks know of it then, which they do not of one
        // that a rank met while it read.
        let mut is_known = false;
        let outcome = input.chunks(done, finder, self.session, &mut |finder, chunk| {
            now += chunk.len;
            is_known = true;
            self.chunk(finder, chunk, work)?;
            is_known = false;
            tell(now);
            Ok(())
        });
        if is_known { outcome } else { self.session.world.agree(outcome) }.map(|()| now)
    }

    /// Finds the facts of a chunk, each rank those of its share; rank 0 keeps them.
    fn chunk(
        &self,
        finder: &mut FactFinder,
        mut chunk: PredictChunk,
        work: &mut Option<UnfinishedPredictions>,
    ) -> Result<()> {
        let session = self.session;
        let going_on = || session.going_on("while predicting");
        let found = finder.find(&mut chunk.tokenized, &chunk.originals, &going_on);
        let (found, mine) = match found {
            Ok(found) => {
                let mine = self.records(finder, &chunk, &found);
                (found, mine)
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        let shares = session.gather(mine)?;
        let scores = self.files.scores.as_ref().map(|_| {
            let mine = found.into_iter().map(|found| found.scores).collect();
            DocumentScores::gather(mine, chunk.len, session)
        });
        let scores = scores.transpose()?;
        let mut shares: Vec<_> = shares.into_iter().map(Vec::into_iter).collect();
        let mut take = |item: usize| shares.get_mut(item % session.world.size())?.next();
        session.world.on_root(|| {
            let records: Vec<DocumentRecord> = (0..chunk.len).filter_map(&mut take).collect();
            match work {
                Some(work) if records.len() == chunk.len => work.keep(&records, scores.as_deref()),
                _ => Err(Error::Bug("the facts of a document are lost".into())),
            }
        })
    }

    /// What is kept of each document of this rank's share.
    fn records(
        &self,
        finder: &FactFinder,
        chunk: &PredictChunk,
        found: &[FoundFacts],
    ) -> Result<Vec<DocumentRecord>> {
        let mut uncertain = vec![UncertainPairs::default(); found.len()];
        if let (Some(_), Some(calibrated)) = (&self.files.review, finder.calibrated()) {
            let (relations, tells_evidence) = (finder.relations(), finder.tells_evidence());
            let documents = chunk.originals.iter().zip(found);
            let sources: Vec<ReviewSource> = documents
                .map(|(document, FoundFacts { scores, facts, .. })| ReviewSource {
                    document,
                    scores,
                    facts,
                    calibrated,
                    relations,
                    tells_evidence,
                })
                .collect();
            uncertain = uncertain_pairs(&sources, self.files.band()?, self.files.most_reviewed());
        }
        let titles = chunk.tokenized.iter().map(|document| document.title.clone());
        let record = |((title, found), uncertain): ((String, &FoundFacts), UncertainPairs)| {
            let (facts, below) = (found.facts.clone(), found.below);
            DocumentRecord { title, facts, below, uncertain }
        };
        Ok(titles.zip(found).zip(uncertain).map(record).collect())
    }

    fn identity(&self, finder: &FactFinder, input: &PredictInput) -> Result<serde_json::Value> {
        let Self { options, files, session, .. } = *self;
        let identity = PredictIdentity {
            version: env!("CARGO_PKG_VERSION"),
            options,
            models: finder.identity()?,
            input: input.is_lasting().then(|| input.identity()).transpose()?,
            precision: format!("{:?}", session.precision(PrecisionChoice::Auto)),
            iterations: self.iterations,
            scores: files.scores.is_some(),
            review: files
                .review
                .as_ref()
                .map(|_| (files.review_band.clone(), files.most_reviewed())),
        };
        serde_json::to_value(identity).map_err(|error| Error::Bug(error.to_string()))
    }
}
