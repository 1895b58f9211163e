//! Names of known things with their identifiers and types, and where a text has them.
//!
//! All names are one automaton, which goes over a text once however many there are. Not for: which
//! thing an ambiguous name means (`annotator`).

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use serde::Deserialize;

use super::normal::{Normal, folded_name, normal_name};
use crate::base::records::{Record, Unit, read_records};
use crate::base::{json_stream, say, text_file};
use crate::corpus::spans::Occupied;
use crate::{DataError, Error, Result};

/// Names of at most so many letters are found in their own case alone.
const SHORT: usize = 2;
const HINT: &str = "a line is id, type, name and further names, separated by tabs, or an object \
    {\"id\": \"Q1\", \"type\": \"PER\", \"name\": \"Ada\", \"aliases\": []}; the id may be empty";

/// Names and what they stand for.
pub struct Dictionary {
    things: Vec<NamedThing>,
    /// Names that are found in their own case.
    exact: NameSet,
    /// Names that are found in any case.
    folded: NameSet,
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dictionary of {} things", self.things.len())
    }
}

/// What a name stands for.
#[derive(Debug)]
pub(super) struct NamedThing {
    /// Its identifier, where it has one.
    pub(super) id: Option<Box<str>>,
    pub(super) entity_type: Box<str>,
}

/// A name in a text.
#[derive(Debug, PartialEq)]
pub(super) struct NameMatch<'a> {
    /// Characters or words of the document.
    pub(super) units: Range<usize>,
    /// What it may stand for, by number, in the order of the file.
    pub(super) things: &'a [u32],
    /// The name as it is compared.
    pub(super) name: String,
}

/// A line of a dictionary.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a name as a JSON object")]
struct DictionaryLine {
    #[serde(default)]
    id: Option<String>,
    #[serde(rename = "type")]
    entity_type: String,
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
}

impl Dictionary {
    /// Reads files of names, plain or gzip: tab-separated lines of id, type, name and aliases, or
    /// JSON objects. With `ignore_case`, names of more than two letters are found in any case.
    ///
    /// # Errors
    /// A [`DataError`] naming file and row of a line that cannot be read, or of an identifier with
    /// two types, and a file without any name; a recipe error for more names than an automaton
    /// holds; I/O errors.
    pub fn load(paths: &[PathBuf], ignore_case: bool) -> Result<Self> {
        let mut building = Building { ignore_case, ..Building::default() };
        for path in paths {
            let lines = building.lines;
            building.read(path)?;
            if building.lines == lines {
                return Err(DataError::new(path, "the file holds no name").hint(HINT).into());
            }
        }
        if building.nameless > 0 {
            let count = building.nameless;
            say(format!("warning: {count} names without a letter or digit were left out"));
        }
        building.finish()
    }

    /// The names in a text, the leftmost first, and of those that begin at the same place the
    /// longest; none that overlaps another or what is taken.
    pub(super) fn find(&self, text: &Normal, taken: &Occupied) -> Vec<NameMatch<'_>> {
        let mut found = Vec::new();
        self.exact.find(text, &mut found);
        if !self.folded.is_empty() {
            self.folded.find(&text.folded(), &mut found);
        }
        found.retain(|name| !taken.overlaps(&name.units));
        leftmost_longest(found, |name| name.units.clone())
    }

    /// What a whole name may stand for.
    pub(super) fn things_of(&self, name: &str) -> &[u32] {
        let name = normal_name(name);
        match self.exact.things_of(&name) {
            [] if !self.folded.is_empty() => self.folded.things_of(&folded_name(&name)),
            things => things,
        }
    }

    pub(super) fn thing(&self, number: u32) -> &NamedThing {
        &self.things[number as usize]
    }

    /// Number of names, each counted once.
    pub fn names(&self) -> usize {
        self.exact.ends.len() + self.folded.ends.len()
    }

    /// Number of things that have these names.
    pub fn things(&self) -> usize {
        self.things.len()
    }
}

/// Of what was found in a text, the leftmost, then the longest, without overlaps.
pub(super) fn leftmost_longest<T>(mut found: Vec<T>, units: impl Fn(&T) -> Range<usize>) -> Vec<T> {
    found.sort_by_key(|one| (units(one).start, std::cmp::Reverse(units(one).end)));
    let mut end = 0;
    found.retain(|one| {
        let range = units(one);
        let is_free = range.start >= end;
        if is_free {
            end = range.end;
        }
        is_free
    });
    found
}

/// Different names in one automaton.
struct NameSet {
    automaton: AhoCorasick,
    /// For each name one past the last of its `things`.
    ends: Vec<u32>,
    things: Vec<u32>,
}

impl NameSet {
    fn new(names: HashMap<Box<str>, Vec<u32>>) -> Result<Self> {
        let mut names: Vec<(Box<str>, Vec<u32>)> = names.into_iter().collect();
        names.sort();
        let (mut ends, mut things) = (Vec::with_capacity(names.len()), Vec::new());
        for (_, own) in &names {
            things.extend(own);
            ends.push(things.len() as u32);
        }
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .prefilter(false)
            .build(names.iter().map(|(name, _)| name.as_bytes()))
            .map_err(|error| {
                Error::recipe(format!("the dictionary is too large: {error}"))
                    .with_hint("leave out names that the texts do not have")
            })?;
        Ok(Self { automaton, ends, things })
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn of(&self, name: usize) -> &[u32] {
        let start = if name == 0 { 0 } else { self.ends[name - 1] };
        &self.things[start as usize..self.ends[name] as usize]
    }

    fn find<'a>(&'a self, text: &Normal, found: &mut Vec<NameMatch<'a>>) {
        for hit in self.automaton.find_overlapping_iter(&text.text) {
            if text.is_start(hit.start()) && text.is_end(hit.end()) {
                found.push(NameMatch {
                    units: text.units(hit.range()),
                    things: self.of(hit.pattern().as_usize()),
                    name: text.text[hit.range()].to_owned(),
                });
            }
        }
    }

    fn things_of(&self, name: &str) -> &[u32] {
        let mut hits = self.automaton.find_overlapping_iter(name);
        let whole = hits.find(|hit| hit.start() == 0 && hit.end() == name.len());
        whole.map_or(&[], |hit| self.of(hit.pattern().as_usize()))
    }
}

/// A dictionary that is being read.
#[derive(Default)]
struct Building {
    ignore_case: bool,
    things: Vec<NamedThing>,
    by_id: HashMap<Box<str>, u32>,
    exact: HashMap<Box<str>, Vec<u32>>,
    folded: HashMap<Box<str>, Vec<u32>>,
    /// Lines with names.
    lines: usize,
    /// Names without a letter or digit.
    nameless: usize,
}

impl Building {
    fn read(&mut self, path: &Path) -> Result<()> {
        match text_file::first_byte(path)? {
            Some(b'{' | b'[') => json_stream::read_array(path, &mut |row, line: DictionaryLine| {
                let names = std::iter::once(&line.name).chain(&line.aliases);
                let names: Vec<&str> = names.map(String::as_str).collect();
                self.add(
                    path,
                    row,
                    line.id.as_deref().unwrap_or_default(),
                    &line.entity_type,
                    &names,
                )
            })
            .map(drop),
            _ => {
                let split = |Record { text, row, .. }: Record<'_>| {
                    Ok((row, text.split('\t').map(|column| column.trim().to_owned()).collect()))
                };
                read_records(path, Unit::Line, &split, &mut |(row, columns): (_, Vec<String>)| {
                    self.add_columns(path, row, &columns)
                })
            }
        }
    }

    fn add_columns(&mut self, path: &Path, row: usize, columns: &[String]) -> Result<()> {
        let is_header = columns.starts_with(&["id".to_owned(), "type".into(), "name".into()]);
        match columns {
            _ if is_header && row == 0 => Ok(()),
            [id, entity_type, names @ ..] if !names.is_empty() => {
                let (name, aliases) = (&names[0], &names[1..]);
                let aliases = aliases.iter().filter(|alias| !alias.is_empty());
                let names: Vec<&str> =
                    std::iter::once(name).chain(aliases).map(String::as_str).collect();
                self.add(path, row, id, entity_type, &names)
            }
            _ => {
                let problem = format!("a line of {} columns is no name", columns.len());
                Err(DataError::new(path, problem).row(row).hint(HINT).into())
            }
        }
    }

    fn add(
        &mut self,
        path: &Path,
        row: usize,
        id: &str,
        entity_type: &str,
        names: &[&str],
    ) -> Result<()> {
        let refused = |field: &str, problem: String| {
            Err(DataError::new(path, problem).row(row).field(field).hint(HINT).into())
        };
        if entity_type.is_empty() {
            return refused("type", "the type is empty".to_owned());
        }
        if names.iter().any(|name| name.trim().is_empty()) {
            return refused("name", "a name is empty".to_owned());
        }
        let known = self.by_id.get(id).copied().filter(|_| !id.is_empty());
        let thing = known.unwrap_or(self.things.len() as u32);
        match known.map(|thing| &self.things[thing as usize].entity_type) {
            Some(own) if **own != *entity_type => {
                let problem =
                    format!("`{id}` is `{own}` in an earlier line and `{entity_type}` here");
                return refused("type", problem);
            }
            Some(_) => {}
            None => {
                let named = (!id.is_empty()).then(|| id.into());
                self.things.push(NamedThing { id: named, entity_type: entity_type.into() });
                self.by_id.insert(id.into(), thing);
            }
        }
        names.iter().for_each(|name| self.add_name(name, thing));
        self.lines += 1;
        Ok(())
    }

    fn add_name(&mut self, name: &str, thing: u32) {
        let name = normal_name(name);
        let letters = name.chars().filter(|c| c.is_alphanumeric()).count();
        if letters == 0 {
            self.nameless += 1;
            return;
        }
        let things = if self.ignore_case && letters > SHORT {
            self.folded.entry(folded_name(&name).into()).or_default()
        } else {
            self.exact.entry(name.into()).or_default()
        };
        if !things.contains(&thing) {
            things.push(thing);
        }
    }

    fn finish(self) -> Result<Dictionary> {
        let Self { things, by_id, exact, folded, .. } = self;
        drop(by_id);
        Ok(Dictionary { things, exact: NameSet::new(exact)?, folded: NameSet::new(folded)? })
    }
}
