//! What a data set holds and what is odd about it: counts, titles and facts that several files
//! share, labels that differ, names that are not the words they stand for, empty documents,
//! lengths.
//!
//! It lies beside the readers because it knows documents only, no scores and no pieces. A survey is
//! fed while documents stream by and keeps hashes, not texts. Not for: refusing documents; what
//! breaks the format is an error of the reader.

use std::fmt;
use std::path::{Path, PathBuf};

use ahash::AHashMap;
use serde::Serialize;

use super::formats::ReadSummary;
use super::{Document, Entity};

/// Positions of BERT's window, markers and frame included.
pub const WINDOW: usize = 512;
/// Width of a bin of the histogram of lengths.
const BIN: usize = 128;
/// Examples kept of each finding.
const EXAMPLES: usize = 5;

/// The published size of a file.
#[derive(Clone, Copy, Debug)]
struct Published {
    /// Stem of the file's name.
    stem: &'static str,
    /// What it is.
    name: &'static str,
    documents: usize,
    facts: Option<usize>,
    /// Pairs that are asked about and bear no fact.
    negatives: Option<usize>,
    /// Pairs that were taken out.
    excluded: Option<usize>,
    /// Facts whose entities share a sentence.
    intra: Option<usize>,
}

const fn published(
    stem: &'static str,
    name: &'static str,
    documents: usize,
    facts: Option<usize>,
) -> Published {
    Published { stem, name, documents, facts, negatives: None, excluded: None, intra: None }
}

const fn cdr(
    stem: &'static str,
    name: &'static str,
    facts: usize,
    pairs: (usize, usize),
    intra: usize,
) -> Published {
    let (negatives, excluded) = (Some(pairs.0), Some(pairs.1));
    Published {
        stem,
        name,
        documents: 500,
        facts: Some(facts),
        negatives,
        excluded,
        intra: Some(intra),
    }
}

/// The sizes of docs/formats.md, "Data sets". CDR in PubTator's form is the same corpus before the
/// hypernym filter, unless that is asked for.
const PUBLISHED: [Published; 14] = [
    published("train_annotated", "DocRED train", 3_053, Some(38_269)),
    published("dev", "DocRED dev", 1_000, Some(12_323)),
    published("test", "DocRED test", 1_000, None),
    published("train_distant", "DocRED distant", 101_873, Some(1_508_320)),
    published("train_revised", "Re-DocRED train", 3_053, None),
    published("dev_revised", "Re-DocRED dev", 500, Some(17_284)),
    published("test_revised", "Re-DocRED test", 500, Some(17_448)),
    cdr("train_filter", "CDR train", 1_038, (4_202, 192), 754),
    cdr("dev_filter", "CDR dev", 1_012, (4_075, 174), 766),
    cdr("test_filter", "CDR test", 1_066, (4_138, 201), 747),
    cdr("CDR_TrainingSet.PubTator", "CDR train", 1_038, (4_202, 192), 754),
    cdr("CDR_DevelopmentSet.PubTator", "CDR dev", 1_012, (4_075, 174), 766),
    cdr("CDR_TestSet.PubTator", "CDR test", 1_066, (4_138, 201), 747),
    Published {
        stem: "gda_test",
        name: "GDA test",
        documents: 1_000,
        facts: Some(1_502),
        negatives: Some(3_720),
        excluded: Some(0),
        intra: Some(1_273),
    },
];

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileSurvey {
    /// The file.
    pub file: PathBuf,
    /// Documents.
    pub documents: usize,
    /// Facts.
    pub facts: usize,
    /// Facts whose entities share a sentence.
    pub intra: usize,
    /// Pairs that are asked about and bear no fact, in labelled documents.
    pub negatives: usize,
    /// Pairs that were taken out of the data.
    pub excluded: usize,
    /// Words of the longest document.
    pub most_words: usize,
    /// Entities of the document with the most.
    pub most_entities: usize,
    /// Documents without entities.
    pub without_entities: usize,
    /// Labelled documents without facts.
    pub without_facts: usize,
    /// Documents without labels.
    pub unlabelled: usize,
    /// Label rows that repeat a fact of the same document.
    pub repeated: usize,
    /// ChemDisGene: label rows that no mentioned pair of the right types bears.
    pub unplaced: usize,
    /// Mentions.
    pub mentions: usize,
    /// Mentions whose name is not the words of their span, white space and case aside.
    pub renamed: usize,
    /// Documents by length, in bins of 128.
    pub lengths: Vec<usize>,
    /// Documents longer than [`WINDOW`].
    pub long: usize,
    /// For each earlier file: titles, and facts by name, that it has too.
    pub shared: Vec<Shared>,
    /// First of the mentions that are renamed: title, name, words.
    pub examples: Vec<[String; 3]>,
}

/// What a file has in common with an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Documents of the same title.
    pub titles: usize,
    /// How many of them carry other labels there (facts compared by the names of their entities).
    pub relabelled: usize,
    /// Facts of which some head name and some tail name stand in the same relation there.
    pub facts: usize,
    /// The first of those titles.
    pub examples: Vec<String>,
}

/// What a data set holds; every file is taken for a split of its own.
#[derive(Debug, Default)]
pub struct Survey {
    files: Vec<FileSurvey>,
    /// Hash of a title → (file, sum of the hashes of its facts).
    titles: AHashMap<u64, Vec<(usize, u64)>>,
    /// Hash of (head name, tail name, relation) → bits of the files; the last bit stands for all
    /// files from the 64th.
    facts: AHashMap<u64, u64>,
}

impl Survey {
    /// Begins a file.
    pub fn file(&mut self, file: &Path) {
        let shared = vec![Shared::default(); self.files.len()];
        self.files.push(FileSurvey { file: file.to_owned(), shared, ..FileSurvey::default() });
    }

    /// Adds a document of the current file. `length` counts words, or pieces with markers where a
    /// tokenizer is at hand.
    pub fn document(&mut self, document: &Document, length: usize) {
        let Some(number) = self.files.len().checked_sub(1) else { return };
        self.files[number].add(document, length);
        self.compare_facts(number, document);
        self.compare_title(number, document);
    }

    /// Adds what the reader of the current file counted beyond its documents.
    pub fn end_file(&mut self, read: &ReadSummary) {
        if let Some(file) = self.files.last_mut() {
            (file.repeated, file.unplaced) = (read.duplicate_facts, read.unplaced_facts);
        }
    }

    /// The findings by file.
    pub fn finish(self) -> Vec<FileSurvey> {
        self.files
    }

    fn compare_facts(&mut self, number: usize, document: &Document) {
        let bit = 1 << number.min(63);
        for fact in document.facts() {
            let mut seen = 0;
            for posting in postings(
                &document.entities[fact.head],
                &document.entities[fact.tail],
                &fact.relation,
            ) {
                let files = self.facts.entry(posting).or_default();
                seen |= *files;
                *files |= bit;
            }
            for (earlier, shared) in self.files[number].shared.iter_mut().enumerate() {
                shared.facts += usize::from(seen >> earlier.min(63) & 1 == 1);
            }
        }
    }

    fn compare_title(&mut self, number: usize, document: &Document) {
        let labels = document.facts().iter().fold(0, |sum: u64, fact| {
            sum.wrapping_add(
                postings(
                    &document.entities[fact.head],
                    &document.entities[fact.tail],
                    &fact.relation,
                )
                .fold(0, u64::wrapping_add),
            )
        });
        let earlier = self.titles.entry(hash(&[&document.title])).or_default();
        for &(file, other) in earlier.iter().filter(|(file, _)| *file != number) {
            let shared = &mut self.files[number].shared[file];
            shared.titles += 1;
            shared.relabelled += usize::from(other != labels);
            if shared.examples.len() < EXAMPLES {
                shared.examples.push(document.title.clone());
            }
        }
        earlier.push((number, labels));
    }
}

impl FileSurvey {
    /// Counts a document; what files share is left to a [`Survey`].
    pub fn add(&mut self, document: &Document, length: usize) {
        self.documents += 1;
        self.facts += document.facts().len();
        self.count_pairs(document);
        self.most_words = self.most_words.max(document.num_words());
        self.most_entities = self.most_entities.max(document.entities.len());
        self.without_entities += usize::from(document.entities.is_empty());
        self.without_facts += usize::from(document.facts.as_ref().is_some_and(Vec::is_empty));
        self.unlabelled += usize::from(document.facts.is_none());
        self.long += usize::from(length > WINDOW);
        let bin = length / BIN;
        if self.lengths.len() <= bin {
            self.lengths.resize(bin + 1, 0);
        }
        self.lengths[bin] += 1;
        for mention in document.entities.iter().flat_map(|entity| &entity.mentions) {
            self.mentions += 1;
            let words = &document.sentences[mention.sentence][mention.start..mention.end];
            if !same_text(&mention.name, words) {
                self.renamed += 1;
                if self.examples.len() < EXAMPLES {
                    self.examples.push([
                        document.title.clone(),
                        mention.name.clone(),
                        words.join(" "),
                    ]);
                }
            }
        }
    }

    fn count_pairs(&mut self, document: &Document) {
        self.intra += document
            .facts()
            .iter()
            .filter(|fact| document.share_sentence(fact.head, fact.tail))
            .count();
        self.excluded += document.candidates.iter().flatten().filter(|pair| pair.excluded).count();
        if document.facts.is_some() {
            let labelled: ahash::AHashSet<(usize, usize)> =
                document.facts().iter().map(|fact| (fact.head, fact.tail)).collect();
            let count = document.entities.len();
            let listed = document
                .candidates
                .as_ref()
                .map(|pairs| pairs.iter().filter(|pair| !pair.excluded).count());
            self.negatives +=
                listed.unwrap_or(count * count.saturating_sub(1)).saturating_sub(labelled.len());
        }
    }

    /// The published size of a file of this name.
    fn published(&self) -> Option<&'static Published> {
        let name = self.file.file_name()?.to_str()?;
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let stem =
            [".jsonl", ".json", ".data", ".txt"].iter().find_map(|end| name.strip_suffix(end))?;
        PUBLISHED.iter().find(|published| published.stem == stem)
    }

    /// What a run should be warned of.
    pub fn warnings(&self) -> Vec<String> {
        let file = self.file.display();
        if self.documents == 0 {
            return vec![format!("{file}: the file holds no document")];
        }
        let mut warnings = Vec::new();
        if let Some(example) = self.examples.first() {
            let (renamed, mentions) = (self.renamed, self.mentions);
            let [title, name, words] = example.each_ref().map(|text| text.escape_debug());
            let first = format!("the first is `{name}` for `{words}` in `{title}`");
            warnings.push(format!(
                "{file}: {renamed} of {mentions} mentions bear a name that is \
                not the words of their span; {first}"
            ));
        }
        if let Some(published) = self.published().filter(|published| !published.agrees(self)) {
            warnings.push(format!("{file}: {}, but {published}", self.counts()));
        }
        if self.without_entities > 0 {
            warnings.push(format!(
                "{file}: {} of {} documents have no entities",
                self.without_entities, self.documents
            ));
        }
        if self.without_facts > 0 {
            warnings.push(format!(
                "{file}: {} of {} documents have labels but no fact",
                self.without_facts, self.documents
            ));
        }
        warnings
    }

    fn counts(&self) -> String {
        let (documents, facts, intra, negatives, excluded) =
            (self.documents, self.facts, self.intra, self.negatives, self.excluded);
        let pairs = format!("{negatives} pairs without one, {excluded} taken out");
        format!("{documents} documents, {facts} facts ({intra} within a sentence), {pairs}")
    }
}

impl Published {
    fn agrees(&self, found: &FileSurvey) -> bool {
        let same = |published: Option<usize>, found: usize| {
            published.is_none_or(|published| published == found)
        };
        // A test split whose labels are hidden has no facts to compare.
        let labelled = found.unlabelled < found.documents;
        found.documents == self.documents
            && (!labelled || (same(self.facts, found.facts) && same(self.intra, found.intra)))
            && (!labelled
                || (same(self.negatives, found.negatives) && same(self.excluded, found.excluded)))
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as published: {} documents", self.name, self.documents)?;
        let parts = [
            (self.facts, "facts"),
            (self.intra, "of them within a sentence"),
            (self.negatives, "pairs without one"),
            (self.excluded, "taken out"),
        ];
        for (count, what) in
            parts.iter().filter_map(|(count, what)| count.map(|count| (count, what)))
        {
            write!(f, ", {count} {what}")?;
        }
        Ok(())
    }
}

/// Whether a name is the words of its span, white space and case aside.
fn same_text(name: &str, words: &[String]) -> bool {
    let letters = |text: &str| {
        text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect::<Vec<_>>()
    };
    // The common case costs no memory.
    name.split(' ').eq(words.iter().map(String::as_str))
        || letters(name) == letters(&words.concat())
}

/// Hashes of a fact under each head name and tail name.
fn postings<'a>(
    head: &'a Entity,
    tail: &'a Entity,
    relation: &'a str,
) -> impl Iterator<Item = u64> + 'a {
    let pairs = head.mentions.iter().flat_map(|h| tail.mentions.iter().map(move |t| (h, t)));
    let mut hashes: Vec<u64> = pairs.map(|(h, t)| hash(&[&h.name, &t.name, relation])).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.into_iter()
}

fn hash(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The survey as text.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct SurveyReport(pub Vec<FileSurvey>);

impl fmt::Display for SurveyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, file) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            file.write(f)?;
            for (earlier, shared) in self.0.iter().zip(&file.shared) {
                shared.write(f, &earlier.file, file.facts)?;
            }
        }
        Ok(())
    }
}

impl FileSurvey {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.file.display(), self.counts())?;
        if let Some(published) = self.published() {
            writeln!(
                f,
                "  {published}{}",
                if published.agrees(self) { "" } else { " — this file differs" }
            )?;
        }
        writeln!(
            f,
            "  at most {} words and {} entities a document",
            self.most_words, self.most_entities
        )?;
        let (entities, facts, labels) =
            (self.without_entities, self.without_facts, self.unlabelled);
        writeln!(
            f,
            "  documents without entities {entities}, without facts {facts}, without labels \
             {labels}"
        )?;
        writeln!(
            f,
            "  label rows that repeat others {}, that no mentioned pair bears {}",
            self.repeated, self.unplaced
        )?;
        writeln!(
            f,
            "  {} of {} mentions bear a name that is not the words of their span",
            self.renamed, self.mentions
        )?;
        for example in &self.examples {
            // A name may hold a line break.
            let [title, name, words] = example.each_ref().map(|text| text.escape_debug());
            writeln!(f, "    `{title}`: name `{name}`, words `{words}`")?;
        }
        write!(f, "  lengths:")?;
        for (bin, count) in self.lengths.iter().enumerate().filter(|(_, count)| **count > 0) {
            write!(f, " {}–{}: {count}", bin * BIN, (bin + 1) * BIN - 1)?;
        }
        writeln!(f, "; longer than {WINDOW}: {}", self.long)
    }
}

impl Shared {
    fn write(&self, f: &mut fmt::Formatter<'_>, other: &Path, facts: usize) -> fmt::Result {
        let (titles, other) = (self.titles, other.display());
        writeln!(
            f,
            "  in common with {other}: {titles} titles ({} with other labels), {} of {facts} facts",
            self.relabelled, self.facts
        )?;
        for title in &self.examples {
            writeln!(f, "    `{title}`")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
