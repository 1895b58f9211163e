//! What a data set holds and what is odd about it: counts, titles and facts that several files
//! share, labels that differ, names that are not the words they stand for, empty documents,
//! lengths.
//!
//! It stands beside the readers because it needs documents only, no scores and no word pieces.
//! Documents are added one by one as they are read, and only hashes are kept, not texts. Not for:
//! refusing documents; the reader reports what breaks the format.

use std::fmt;
use std::path::{Path, PathBuf};

use ahash::AHashMap;
use serde::Serialize;

use super::formats::{LeftOut, ReadSummary};
use super::{Document, Entity, Fact};
use crate::base::hash_number;

/// Number of positions in BERT's window, with markers and special pieces.
pub const WINDOW: usize = 512;
/// Width of a bin of the histogram of lengths.
const BIN: usize = 128;
/// Examples kept of each finding.
const EXAMPLES: usize = 5;

/// The published size of a file.
#[derive(Clone, Copy, Debug)]
struct Published {
    /// Stems of the names that the file goes by.
    stems: &'static [&'static str],
    /// What it is.
    name: &'static str,
    documents: usize,
    facts: Option<usize>,
    pairs: Option<PublishedPairs>,
}

/// The pairs of a corpus that lists them.
#[derive(Clone, Copy, Debug)]
struct PublishedPairs {
    /// Pairs that are asked about and have no fact.
    negatives: usize,
    /// Pairs that were taken out.
    excluded: usize,
    /// Facts whose entities share a sentence.
    intra: usize,
}

const fn published(
    stems: &'static [&'static str],
    name: &'static str,
    documents: usize,
    facts: Option<usize>,
    pairs: Option<(usize, usize, usize)>,
) -> Published {
    let pairs = match pairs {
        Some((negatives, excluded, intra)) => Some(PublishedPairs { negatives, excluded, intra }),
        None => None,
    };
    Published { stems, name, documents, facts, pairs }
}

/// The sizes of docs/formats.md, "Data sets": documents, facts, and for listed pairs those without
/// a fact, those taken out, and facts within a sentence. CDR in PubTator's form is the same corpus
/// before the hypernym filter, unless that is asked for.
const PUBLISHED: [Published; 11] = [
    published(&["train_annotated"], "DocRED train", 3_053, Some(38_269), None),
    published(&["dev"], "DocRED dev", 1_000, Some(12_323), None),
    published(&["test"], "DocRED test", 1_000, None, None),
    published(&["train_distant"], "DocRED distant", 101_873, Some(1_508_320), None),
    published(&["train_revised"], "Re-DocRED train", 3_053, None, None),
    published(&["dev_revised"], "Re-DocRED dev", 500, Some(17_284), None),
    published(&["test_revised"], "Re-DocRED test", 500, Some(17_448), None),
    published(
        &["train_filter", "CDR_TrainingSet.PubTator"],
        "CDR train",
        500,
        Some(1_038),
        Some((4_202, 192, 754)),
    ),
    published(
        &["dev_filter", "CDR_DevelopmentSet.PubTator"],
        "CDR dev",
        500,
        Some(1_012),
        Some((4_075, 174, 766)),
    ),
    published(
        &["test_filter", "CDR_TestSet.PubTator"],
        "CDR test",
        500,
        Some(1_066),
        Some((4_138, 201, 747)),
    ),
    published(&["gda_test"], "GDA test", 1_000, Some(1_502), Some((3_720, 0, 1_273))),
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
    /// Pairs that are asked about and have no fact, in labelled documents.
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
    /// ChemDisGene: label rows that fit no mentioned pair of the right types.
    pub unplaced: usize,
    /// Label rows that say "no relation".
    pub no_relation: usize,
    /// PubTator: label rows of types that are not asked about.
    pub unasked: usize,
    /// Documents and rows that cannot be read.
    pub left_out: Vec<LeftOut>,
    /// What the reader has to say.
    pub notes: Vec<String>,
    /// Mentions.
    pub mentions: usize,
    /// Mentions whose name differs from the words of their span in more than white space and case.
    pub renamed: usize,
    /// Entities.
    pub entities: usize,
    /// Entities with mentions in several sentences.
    pub entities_across: usize,
    /// Documents by length, in bins of 128.
    pub lengths: Vec<usize>,
    /// Documents longer than [`WINDOW`].
    pub long: usize,
    /// What it has in common with each earlier file.
    pub shared: Vec<Shared>,
    /// The first mentions with another name: title, name, words.
    pub examples: Vec<[String; 3]>,
}

/// What a file has in common with an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Documents of the same title.
    pub titles: usize,
    /// How many of them have other labels there. Facts are compared by the names of their entities.
    pub relabelled: usize,
    /// Facts that are there too: some name of the head and some name of the tail have the same
    /// relation.
    pub facts: usize,
    /// The first of those titles.
    pub examples: Vec<String>,
}

/// What a data set holds. Each file counts as a split of its own.
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

    /// Adds a document of the current file. `length` is in words, or, if there is a tokenizer, in
    /// pieces with markers.
    pub fn document(&mut self, document: &Document, length: usize) {
        let Some(number) = self.files.len().checked_sub(1) else { return };
        self.files[number].add(document, length);
        self.compare_facts(number, document);
        self.compare_title(number, document);
    }

    /// Adds the counts that only the reader of the current file knows.
    pub fn end_file(&mut self, read: ReadSummary) {
        if let Some(file) = self.files.last_mut() {
            (file.repeated, file.unplaced) = (read.duplicate_facts, read.unplaced_facts);
            (file.no_relation, file.unasked) = (read.no_relation, read.unasked_facts);
            let passed_over =
                read.passed_over.iter().map(|(count, what)| format!("{count} {what}"));
            file.notes = read.notes.iter().cloned().chain(passed_over).collect();
            file.left_out = read.left_out;
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
            for posting in postings(document, fact) {
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
            postings(document, fact).into_iter().fold(sum, u64::wrapping_add)
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
    /// Counts a document. What files have in common is counted by a [`Survey`].
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
        let across = |entity: &&Entity| {
            let mut sentences = entity.mentions.iter().map(|mention| mention.sentence);
            let first = sentences.next();
            sentences.any(|sentence| Some(sentence) != first)
        };
        self.entities += document.entities.len();
        self.entities_across += document.entities.iter().filter(across).count();
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
        PUBLISHED.iter().find(|published| published.stems.contains(&stem))
    }

    /// What the user should be warned of.
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
        let damaged = |published: &&Published| published.is_meant(self) && !published.agrees(self);
        if let Some(published) = self.published().filter(damaged) {
            warnings.push(format!("{file}: {}, but {published}", self.counts()));
        }
        let lacking = [
            (self.without_entities, "have no entities"),
            (self.without_facts, "have labels but no fact"),
        ];
        for (count, what) in lacking.into_iter().filter(|(count, _)| *count > 0) {
            warnings.push(format!("{file}: {count} of {} documents {what}", self.documents));
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
    /// Whether a file of this name is this data set, perhaps damaged, rather than another one: it
    /// holds at least half of the documents.
    fn is_meant(&self, found: &FileSurvey) -> bool {
        2 * found.documents >= self.documents
    }

    fn agrees(&self, found: &FileSurvey) -> bool {
        // A test split whose labels are hidden has no facts to compare.
        let labelled = found.unlabelled < found.documents;
        let same_facts = self.facts.is_none_or(|facts| facts == found.facts);
        let same_pairs = self.pairs.is_none_or(|pairs| {
            (pairs.negatives, pairs.excluded, pairs.intra)
                == (found.negatives, found.excluded, found.intra)
        });
        found.documents == self.documents && (!labelled || (same_facts && same_pairs))
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as published: {} documents", self.name, self.documents)?;
        if let Some(facts) = self.facts {
            write!(f, ", {facts} facts")?;
        }
        if let Some(PublishedPairs { negatives, excluded, intra }) = self.pairs {
            write!(f, ", {intra} of them within a sentence")?;
            write!(f, ", {negatives} pairs without one, {excluded} taken out")?;
        }
        Ok(())
    }
}

/// Whether a name is the words of its span but for white space and case.
fn same_text(name: &str, words: &[String]) -> bool {
    let letters = |text: &str| {
        text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect::<Vec<_>>()
    };
    // The common case costs no memory.
    name.split(' ').eq(words.iter().map(String::as_str))
        || letters(name) == letters(&words.concat())
}

/// One hash of a fact for each pair of a head name and a tail name.
fn postings(document: &Document, fact: &Fact) -> Vec<u64> {
    let [head, tail] = [fact.head, fact.tail].map(|entity| &document.entities[entity].mentions);
    let pairs = head.iter().flat_map(|h| tail.iter().map(move |t| (h, t)));
    let mut hashes: Vec<u64> =
        pairs.map(|(h, t)| hash(&[&h.name, &t.name, &fact.relation])).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

fn hash(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hash_number(&hasher.finalize())
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
        if self.documents == 0 && !self.left_out.is_empty() {
            return writeln!(f, "{}: cannot be read", self.file.display());
        }
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
        writeln!(
            f,
            "  {} of {} entities are mentioned in several sentences ({:.1} %)",
            self.entities_across,
            self.entities,
            100.0 * self.entities_across as f64 / self.entities.max(1) as f64
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
            "  label rows that repeat others {}, that no mentioned pair bears {}, of types not \
             asked about {}, of no relation {}",
            self.repeated, self.unplaced, self.unasked, self.no_relation
        )?;
        if !self.left_out.is_empty() {
            writeln!(f, "  documents or relations that cannot be read: {}", self.left_out.len())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))?;
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
