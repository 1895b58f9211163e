//! The documents tell the truth: every example runs, every recipe and JSON text parses, every link
//! leads somewhere, and the messages that the troubleshooting table quotes are in the code.
//!
//! A block of a page is run as it stands unless the line before it says otherwise:
//!
//! * `<!-- not run: REASON -->`: it is not run.
//! * `<!-- run: COMMANDS -->`: these are run in its place, mostly the same with smaller settings.
//! * `<!-- file: NAME -->`: it becomes a file that later blocks of the page use.
//!
//! Not for: what the commands compute (`cli.rs`). Python examples run in `make test-interop` and
//! `make test-python`.
#![allow(clippy::unwrap_used, reason = "a call that fails fails its test")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use common::{allow_mpirun, free_of_launchers, program};

/// Longest line outside of tables and blocks.
const COLUMNS: usize = 100;

/// Messages of the troubleshooting table that other programs and libraries print.
const FOREIGN: [&str; 4] =
    ["mpirun has detected", "No space left on device", "403 Forbidden", "error sending request"];

/// A fenced block of a page.
struct Block {
    page: String,
    /// Line of the opening fence, from 1.
    line: usize,
    language: String,
    text: String,
    /// What the comment before it says: the kind of mark and its text.
    mark: Option<(String, String)>,
}

impl Block {
    fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    fn marked(&self, kind: &str) -> Option<&str> {
        let (found, text) = self.mark.as_ref()?;
        (found == kind).then_some(text)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The pages, as paths from the root of the repository.
fn pages() -> Vec<String> {
    let mut pages =
        ["README.md", "CONTRIBUTING.md", "python/README.md"].map(str::to_owned).to_vec();
    for entry in fs_err::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages.sort();
    pages
}

fn read(page: &str) -> String {
    fs_err::read_to_string(root().join(page)).unwrap()
}

/// The mark of a line `<!-- KIND: TEXT -->`.
fn mark_of(line: &str) -> Option<(String, String)> {
    let inner = line.trim().strip_prefix("<!--")?.strip_suffix("-->")?.trim();
    let (kind, text) = inner.split_once(':')?;
    Some((kind.to_owned(), text.trim().to_owned()))
}

fn blocks(page: &str) -> Vec<Block> {
    let text = read(page);
    let mut lines = text.lines().enumerate();
    let (mut found, mut before) = (Vec::new(), "");
    while let Some((number, line)) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let inside: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| !line.trim_start().starts_with("```"))
                .collect();
            found.push(Block {
                page: page.to_owned(),
                line: number + 1,
                language: language.to_owned(),
                text: inside.join("\n"),
                mark: mark_of(before),
            });
        }
        if !line.trim().is_empty() {
            before = line;
        }
    }
    found
}

/// The shell script of a page: all of its examples, in order.
fn script(page: &str) -> String {
    let mut script = String::new();
    for block in blocks(page) {
        let place = block.place();
        if let Some(name) = block.marked("file") {
            writeln!(script, "cat > {name} <<'END OF FILE'\n{}\nEND OF FILE", block.text).unwrap();
        } else if block.language == "sh" {
            let commands = match &block.mark {
                Some((kind, _)) if kind == "not run" => continue,
                Some((kind, commands)) if kind == "run" => commands,
                _ => &block.text,
            };
            writeln!(script, "echo '== {place}' >&2\n{commands}").unwrap();
        }
    }
    script
}

/// A page whose examples need reference data.
const TUTORIAL: &str = "docs/tutorial.md";

/// Runs all examples of a page in a folder of its own.
fn run_page(page: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("jobs"), folder.path().join("jobs")).unwrap();
    let program = program();
    let mut path = program.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut command = Command::new("bash");
    free_of_launchers(&mut command);
    allow_mpirun(&mut command);
    command.args(["-euo", "pipefail", "-c", &script(page)]).env("PATH", path);
    // Threads that wait sleep: on a busy machine, spinning takes ten times as long.
    command.env("OMP_WAIT_POLICY", "passive");
    if let Some(data) = std::env::var_os("DOCRE_SHARED") {
        command.env("DATA", Path::new(&data).join("data"));
    }
    let output = command.current_dir(folder.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = stderr.lines().rev().take(20).collect();
    let tail: String = tail.into_iter().rev().map(|line| format!("{line}\n")).collect();
    assert!(output.status.success(), "an example of {page} fails:\n{tail}");
}

#[test]
fn examples_of_the_readme_run() {
    run_page("README.md");
}

#[test]
fn examples_for_operators_run() {
    run_page("docs/operation.md");
}

#[test]
fn examples_of_all_other_pages_run() {
    for page in pages() {
        if ![TUTORIAL, "README.md", "docs/operation.md"].contains(&page.as_str()) {
            run_page(&page);
        }
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn the_tutorial_runs_on_real_documents() {
    run_page(TUTORIAL);
}

#[test]
fn marks_are_known_and_say_why() {
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let place = block.place();
        let languages = ["", "sh", "toml", "json", "python"];
        assert!(languages.contains(&block.language.as_str()), "{place}: `{}`", block.language);
        if let Some((kind, text)) = &block.mark {
            assert!(["run", "not run", "file"].contains(&kind.as_str()), "{place}: mark `{kind}`");
            assert!(text.len() > 3, "{place}: the mark says nothing");
        }
    }
}

#[test]
fn recipes_and_json_parse() {
    let folder = tempfile::tempdir().unwrap();
    // Tables stand in a folder beside the recipes, as in jobs.
    fs_err::create_dir(folder.path().join("tables")).unwrap();
    fs_err::copy(root().join("jobs/smoke.toml"), folder.path().join("smoke.toml")).unwrap();
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let place = block.place();
        match block.language.as_str() {
            "toml" => {
                let has = |heading: &str| block.text.contains(heading);
                let name = if has("[[rows]]") { "tables/table.toml" } else { "file.toml" };
                let file = folder.path().join(name);
                fs_err::write(&file, &block.text).unwrap();
                let mut command = Command::new(program());
                free_of_launchers(&mut command);
                if has("[[rows]]") {
                    command.arg("table").arg(&file).arg("--list");
                } else if has("[[relation]]") {
                    let nothing = folder.path().join("predictions.json");
                    fs_err::write(&nothing, "[]").unwrap();
                    command.args(["graph", "--predictions"]).arg(&nothing);
                    command.arg("--constraints").arg(&file);
                    command.arg("--output").arg(folder.path().join("graph"));
                } else {
                    command.args(["explain", "seed", "--recipe"]).arg(&file);
                }
                let output = command.output().unwrap();
                let message = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{place}: {message}");
            }
            "json" => {
                let whole = serde_json::from_str::<Value>(&block.text);
                let lines = block.text.lines().map(serde_json::from_str::<Value>);
                let lines: Result<Vec<Value>, _> = lines.collect();
                assert!(whole.is_ok() || lines.is_ok(), "{place}: {}", whole.unwrap_err());
            }
            _ => {}
        }
    }
}

/// A page without its fenced blocks.
fn prose(page: &str) -> String {
    let mut inside = false;
    let mut prose = String::new();
    for line in read(page).lines() {
        let fence = line.trim_start().starts_with("```");
        if !inside && !fence {
            prose.push_str(line);
        }
        inside ^= fence;
        prose.push('\n');
    }
    prose
}

#[test]
fn lines_fit_on_the_screen() {
    for page in pages() {
        let (mut formula, text) = (false, prose(&page));
        for (number, line) in text.lines().enumerate() {
            let delimiters = line.matches("$$").count();
            let exempt = formula || delimiters > 0 || line.starts_with(['|', '<', '#']);
            let fits = exempt || line.chars().count() <= COLUMNS;
            assert!(fits, "{page}:{}: {line}", number + 1);
            formula ^= delimiters % 2 == 1;
        }
    }
    let readme = read("README.md").lines().count();
    assert!(readme <= 150, "README.md has {readme} lines: it is a greeting");
}

/// The anchor of a heading, as GitHub and GitLab make it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs_err::read_to_string(page).unwrap();
    let heading = |line: &str| {
        let rest = line.trim_start_matches('#');
        (rest.len() < line.len()).then(|| anchor(rest.trim()))
    };
    text.lines().filter_map(heading).collect()
}

/// The targets of the links of a text.
fn links(text: &str) -> Vec<&str> {
    let starts = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    starts.filter_map(|rest| rest.split_once(')').map(|(target, _)| target)).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = prose(&page);
        let here = root().join(&page);
        for target in links(&text).into_iter().filter(|target| !target.starts_with("http")) {
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { here.clone() } else { here.with_file_name(file) };
            if !file.exists() || !section.is_empty() && !anchors(&file).contains(section) {
                dead.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// Names of files between backticks that begin with a folder of the repository.
fn named_files(text: &str) -> Vec<&str> {
    let folders = ["src/", "tests/", "jobs/", "schemas/", "cluster/", "docs/", ".ci/"];
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| folders.iter().any(|folder| name.starts_with(folder)))
        .filter(|name| !name.contains(|c: char| c.is_whitespace() || c.is_uppercase() || c == '*'))
        .collect()
}

#[test]
fn named_files_exist() {
    let mut absent = Vec::new();
    for page in pages() {
        for name in named_files(&prose(&page)) {
            if !root().join(name).exists() {
                absent.push(format!("{page}: {name}"));
            }
        }
    }
    assert!(absent.is_empty(), "{absent:#?}");
}

/// Words in backticks that look like the name of a type: `DocumentStore`, or its start in
/// `DocumentStore::get`.
fn named_types(text: &str) -> BTreeSet<&str> {
    let spans = text.split('`').skip(1).step_by(2);
    let names = spans.map(|span| span.split(['<', ':', '(']).next().unwrap_or_default());
    let is_type = |name: &&str| {
        name.starts_with(char::is_uppercase)
            && name.contains(char::is_lowercase)
            && name.chars().all(char::is_alphanumeric)
    };
    names.filter(is_type).collect()
}

#[test]
fn named_types_exist() {
    // In the first column of the table for people from PyTorch stand names of PyTorch.
    let ours = |line: &str| match line.strip_prefix('|') {
        Some(row) => row.split_once('|').map_or_else(String::new, |(_, rest)| rest.to_owned()),
        None => String::new(),
    };
    let table: String = read("docs/from-pytorch.md").lines().map(ours).collect();
    let text = [prose("docs/design.md"), prose("CONTRIBUTING.md"), table].join("\n");
    let code = messages();
    let kinds = ["struct", "enum", "trait", "type"];
    let defined = |name: &&str| {
        kinds.iter().any(|kind| {
            let definition = format!("{kind} {name}");
            code.match_indices(&definition).any(|(at, _)| {
                !code[at + definition.len()..].starts_with(|c: char| c.is_alphanumeric())
            })
        })
    };
    let absent: Vec<&str> = named_types(&text).into_iter().filter(|name| !defined(name)).collect();
    assert!(absent.is_empty(), "no such types: {absent:?}");
}

/// The keys of a recipe's table by the schema.
fn keys_of(table: &str) -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(&read("schemas/recipe.json")).unwrap();
    let reference = schema["properties"][table]["$ref"].as_str().unwrap_or_default();
    let properties = schema.pointer(&format!("{}/properties", reference.trim_start_matches('#')));
    properties
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, _)| key.clone())
        .collect()
}

#[test]
fn every_key_of_a_recipe_is_explained() {
    let page = read("docs/operation.md");
    for table in ["data", "encoder", "dsdocre", "rank"] {
        let heading = format!("\n### `[{table}]`");
        let section = page.split(&heading).nth(1).unwrap().split("\n##").next().unwrap();
        let cells = section.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
        let explained: BTreeSet<String> =
            cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect();
        // Tables inside a table are explained in prose.
        let inner = ["synth", "label", "split"].map(str::to_owned);
        let keys: BTreeSet<String> =
            keys_of(table).into_iter().filter(|key| !inner.contains(key)).collect();
        assert_eq!(explained, keys, "[{table}]");
    }
}

#[test]
fn the_table_of_rooms_is_that_of_the_library() {
    let (design, library) = (read("docs/design.md"), read("src/lib.rs"));
    let table = design.split("| room | its one job |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let told: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let modules = library.lines().map(|line| line.strip_prefix("pub ").unwrap_or(line));
    let names = modules.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let rooms: Vec<&str> = names.filter(|name| root().join("src").join(name).is_dir()).collect();
    assert_eq!(told, rooms);
}

#[test]
fn the_picture_is_the_one_that_the_script_draws() {
    let drawn = Command::new("python3").arg(root().join("docs/draw_pipeline.py")).output().unwrap();
    let kept = fs_err::read(root().join("docs/pipeline.svg")).unwrap();
    assert!(drawn.stdout == kept, "run python3 docs/draw_pipeline.py > docs/pipeline.svg");
}

/// All sources as one text: continued strings joined, what is filled in as `…`.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs_err::read_to_string(path).unwrap());
        }
    }
}

fn messages() -> String {
    let mut text = String::new();
    sources(&root().join("src"), &mut text);
    let mut joined = String::with_capacity(text.len());
    for line in text.lines() {
        match line.strip_suffix('\\') {
            Some(start) => joined.push_str(&format!("{} ", start.trim())),
            None => joined.push_str(line.trim()),
        }
    }
    let words: Vec<&str> = joined.split_whitespace().collect();
    words.join(" ")
}

/// Pieces of a quoted message that no value is filled into: between `…`, and beside the single
/// capital letters that stand for a value.
fn fixed_pieces(message: &str) -> Vec<String> {
    let mut pieces = vec![Vec::new()];
    for word in message.split_whitespace() {
        let value = word.contains('…') || (word.len() == 1 && word.chars().all(char::is_uppercase));
        if value {
            pieces.push(Vec::new());
        } else if let Some(piece) = pieces.last_mut() {
            piece.push(word);
        }
    }
    pieces.into_iter().map(|piece| piece.join(" ")).filter(|piece| piece.len() > 3).collect()
}

#[test]
fn quoted_messages_are_in_the_code() {
    let page = read("docs/operation.md");
    let table = page.split("## Troubleshooting").nth(1).unwrap();
    let code = messages();
    let (mut quoted, mut unknown) = (0, Vec::new());
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let message = row.split('|').nth(1).unwrap();
        for message in message.split('`').skip(1).step_by(2) {
            quoted += 1;
            for piece in fixed_pieces(message) {
                if !code.contains(&piece) && !FOREIGN.iter().any(|own| piece.contains(own)) {
                    unknown.push(piece);
                }
            }
        }
    }
    assert!(quoted > 30, "{quoted} messages");
    assert!(unknown.is_empty(), "docs/operation.md quotes what no message says: {unknown:#?}");
}
