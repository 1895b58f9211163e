//! Keeps the shape of the source tree: which room may use which, no circles of files, no type name
//! twice, no line over 100 characters, no reference to a file that is not here.
//!
//! Not for: what the code does. Files are parsed with `syn`; paths are followed through re-exports
//! to the file that defines the item.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// A module path below the crate: `["ranks", "failure", "keeper"]`.
type Module = Vec<String>;

/// The widest line of code, in characters.
const WIDTH: usize = 100;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with one of the endings, sorted.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if endings
                .iter()
                .any(|ending| path.extension().is_some_and(|own| own == *ending))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Whether a file holds tests or what only tests use.
fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        let name = name.trim_end_matches(".rs");
        name == "tests" || name == "testing" || name.ends_with("_tests")
    })
}

/// One file of `src` as far as its names go.
struct SourceFile {
    path: PathBuf,
    /// What it defines at its top level.
    defined: BTreeSet<String>,
    /// What it brings in at its top level: local name → absolute path.
    imports: BTreeMap<String, Module>,
    /// Of these, the names that it hands on with `pub use`.
    exported: BTreeSet<String>,
    /// All absolute paths that its code names, those of `use` lines that it needs itself included.
    used: BTreeSet<Module>,
    /// Names of types.
    types: Vec<String>,
}

/// The files by module path.
struct House {
    files: BTreeMap<Module, SourceFile>,
}

fn module_of(path: &Path) -> Module {
    let relative = path.strip_prefix(root().join("src")).unwrap().with_extension("");
    let mut parts: Module =
        relative.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// Whether an item is compiled for tests only.
fn is_test_item(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                list.tokens
                    .to_string()
                    .split(|c: char| !c.is_alphanumeric())
                    .any(|word| word == "test")
            })
    })
}

/// An absolute path below the crate, or `None` for a path of another crate.
fn absolute(segments: &[String], here: &Module, inner: &BTreeSet<String>) -> Option<Module> {
    let mut base = match segments.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => here.clone(),
        first if inner.contains(first) => {
            return Some([here.as_slice(), segments].concat());
        }
        _ => return None,
    };
    let mut rest = segments;
    if rest[0] == "crate" || rest[0] == "self" {
        rest = &rest[1..];
    }
    while rest.first().is_some_and(|first| first == "super") {
        base.pop();
        rest = &rest[1..];
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

struct Reader<'a> {
    here: &'a Module,
    children: BTreeSet<String>,
    depth: usize,
    file: SourceFile,
}

impl Reader<'_> {
    fn tree(&mut self, prefix: &[String], tree: &syn::UseTree, exported: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                let prefix = [prefix, &[path.ident.to_string()]].concat();
                self.tree(&prefix, &path.tree, exported);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.tree(prefix, item, exported));
            }
            syn::UseTree::Name(name) => {
                self.import(prefix, &name.ident.to_string(), None, exported);
            }
            syn::UseTree::Rename(rename) => {
                let local = rename.rename.to_string();
                self.import(prefix, &rename.ident.to_string(), Some(local), exported);
            }
            syn::UseTree::Glob(_) => self.path(prefix),
        }
    }

    fn import(&mut self, prefix: &[String], name: &str, local: Option<String>, exported: bool) {
        let mut segments = prefix.to_vec();
        if name != "self" {
            segments.push(name.to_owned());
        }
        let Some(path) = absolute(&segments, self.here, &self.children) else { return };
        let local = local.unwrap_or_else(|| segments[segments.len() - 1].clone());
        if self.depth == 0 {
            self.file.imports.insert(local.clone(), path.clone());
            if exported {
                self.file.exported.insert(local);
                return;
            }
        }
        self.file.used.insert(path);
    }

    fn path(&mut self, segments: &[String]) {
        if let Some(path) = absolute(segments, self.here, &BTreeSet::new()) {
            self.file.used.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Type(item) => &item.attrs,
            syn::Item::Trait(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if is_test_item(attributes) {
            return;
        }
        let (name, is_type) = match item {
            syn::Item::Fn(item) => (Some(item.sig.ident.to_string()), false),
            syn::Item::Struct(item) => (Some(item.ident.to_string()), true),
            syn::Item::Enum(item) => (Some(item.ident.to_string()), true),
            syn::Item::Union(item) => (Some(item.ident.to_string()), true),
            syn::Item::Trait(item) => (Some(item.ident.to_string()), true),
            syn::Item::Type(item) => (Some(item.ident.to_string()), true),
            syn::Item::Const(item) => (Some(item.ident.to_string()), false),
            syn::Item::Static(item) => (Some(item.ident.to_string()), false),
            _ => (None, false),
        };
        if self.depth == 0
            && let Some(name) = name
        {
            if is_type {
                self.file.types.push(name.clone());
            }
            self.file.defined.insert(name);
        }
        if let syn::Item::Use(item) = item {
            let exported = !matches!(item.vis, syn::Visibility::Inherited);
            self.tree(&[], &item.tree, exported);
            return;
        }
        let inside = matches!(item, syn::Item::Fn(_) | syn::Item::Mod(_) | syn::Item::Impl(_));
        self.depth += usize::from(inside);
        syn::visit::visit_item(self, item);
        self.depth -= usize::from(inside);
    }

    /// `pub(super)` names a module, but uses nothing of it.
    fn visit_visibility(&mut self, _visibility: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Module =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&segments);
        // A module that was imported, or a name that is handed on and used here too.
        if let Some(imported) = self.file.imports.get(&segments[0]) {
            let full = [imported.as_slice(), &segments[1..]].concat();
            self.file.used.insert(full);
        }
        syn::visit::visit_path(self, path);
    }
}

fn read_house() -> House {
    let paths: Vec<PathBuf> = files("src", &["rs"]);
    let modules: BTreeSet<Module> = paths.iter().map(|path| module_of(path)).collect();
    let mut files = BTreeMap::new();
    for path in paths.iter().filter(|path| !is_test_file(path) && !path.ends_with("src/main.rs")) {
        let here = module_of(path);
        let children = modules
            .iter()
            .filter(|module| module.len() == here.len() + 1 && module.starts_with(&here))
            .map(|module| module[here.len()].clone())
            .collect();
        let syntax = syn::parse_file(&fs_err::read_to_string(path).unwrap()).unwrap();
        let file = SourceFile {
            path: path.clone(),
            defined: BTreeSet::new(),
            imports: BTreeMap::new(),
            exported: BTreeSet::new(),
            used: BTreeSet::new(),
            types: Vec::new(),
        };
        let mut reader = Reader { here: &here, children, depth: 0, file };
        // Imports first: code may stand above the `use` that it needs.
        for item in &syntax.items {
            if matches!(item, syn::Item::Use(_)) {
                reader.visit_item(item);
            }
        }
        for item in &syntax.items {
            if !matches!(item, syn::Item::Use(_)) {
                reader.visit_item(item);
            }
        }
        let file = reader.file;
        files.insert(here, file);
    }
    House { files }
}

impl House {
    /// The module that defines what an absolute path names, followed through imports.
    fn defining(&self, path: &Module, steps: usize) -> Option<Module> {
        let mut module = Module::new();
        for (at, segment) in path.iter().enumerate() {
            let mut child = module.clone();
            child.push(segment.clone());
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let file = self.files.get(&module)?;
            if file.defined.contains(segment) {
                return Some(module);
            }
            let target = file.imports.get(segment)?;
            if steps == 0 {
                return None;
            }
            let next = [target.as_slice(), &path[at + 1..]].concat();
            return self.defining(&next, steps - 1);
        }
        Some(module)
    }

    /// For each file the files that define what it uses.
    fn arrows(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let targets = |(own, file): (&Module, &SourceFile)| -> BTreeSet<Module> {
            let found = file.used.iter().filter_map(|path| self.defining(path, 8));
            found.filter(|target| target != own && !target.is_empty()).collect()
        };
        self.files.iter().map(|entry| (entry.0, targets(entry))).collect()
    }
}

/// The rooms in the order of `src/lib.rs`.
fn rooms() -> Vec<String> {
    let syntax =
        syn::parse_file(&fs_err::read_to_string(root().join("src/lib.rs")).unwrap()).unwrap();
    let names = syntax.items.iter().filter_map(|item| match item {
        syn::Item::Mod(item) if !is_test_item(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    });
    names.collect()
}

#[test]
fn a_room_uses_only_rooms_above_it() {
    let (house, rooms) = (read_house(), rooms());
    let place = |module: &Module| rooms.iter().position(|room| *room == module[0]);
    let mut wrong = Vec::new();
    for (module, targets) in house.arrows() {
        for target in
            targets.iter().filter(|target| !module.is_empty() && place(target) > place(module))
        {
            wrong.push(format!("{} uses {}", shown(&house.files[module].path), target.join("::")));
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

/// Groups of modules that can be reached from each other (Tarjan's strongly connected components).
fn circles(arrows: &BTreeMap<&Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    struct Walk<'a> {
        arrows: &'a BTreeMap<&'a Module, BTreeSet<Module>>,
        index: BTreeMap<Module, (usize, usize)>,
        stack: Vec<Module>,
        found: Vec<Vec<String>>,
    }
    impl Walk<'_> {
        fn visit(&mut self, module: &Module) -> usize {
            let own = self.index.len();
            self.index.insert(module.clone(), (own, own));
            self.stack.push(module.clone());
            let mut low = own;
            for target in self.arrows.get(module).into_iter().flatten() {
                let reached = match self.index.get(target) {
                    None => self.visit(target),
                    Some(&(number, _)) if self.stack.contains(target) => number,
                    Some(_) => continue,
                };
                low = low.min(reached);
            }
            if low == own {
                let at = self.stack.iter().position(|open| open == module).unwrap();
                let group = self.stack.split_off(at);
                if group.len() > 1 {
                    self.found.push(group.iter().map(|module| module.join("::")).collect());
                }
            }
            low
        }
    }
    let mut walk = Walk { arrows, index: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for module in arrows.keys() {
        if !walk.index.contains_key(*module) {
            walk.visit(module);
        }
    }
    walk.found
}

#[test]
fn files_do_not_use_each_other_in_circles() {
    let house = read_house();
    let found = circles(&house.arrows());
    let lines: Vec<String> = found.iter().map(|group| group.join(", ")).collect();
    assert!(lines.is_empty(), "{} circles of files:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn no_type_name_is_defined_twice() {
    let house = read_house();
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in house.files.values() {
        for name in &file.types {
            places.entry(name).or_default().push(shown(&file.path));
        }
    }
    let double = places.iter().filter(|(_, files)| files.len() > 1);
    let lines: Vec<String> =
        double.map(|(name, files)| format!("{name}: {}", files.join(", "))).collect();
    assert!(
        lines.is_empty(),
        "{} names of types are defined twice:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn no_line_of_code_is_wider_than_100_characters() {
    let code = ["src", "tests", "benches"].iter().filter(|folder| root().join(folder).exists());
    let mut wide = Vec::new();
    for path in code.flat_map(|folder| files(folder, &["rs", "hpp", "cpp", "c"])) {
        for (number, line) in fs_err::read_to_string(&path).unwrap().lines().enumerate() {
            if line.chars().count() > WIDTH {
                wide.push(format!("{}:{}", shown(&path), number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{} lines are too wide:\n{}", wide.len(), wide.join("\n"));
}

/// Names of Markdown files in code and documents must be files of the repository.
#[test]
fn documents_that_are_cited_are_here() {
    let mut missing = Vec::new();
    let texts = ["src", "tests", "jobs", "schemas", "docs", "cluster"];
    let own = files("docs", &["md"]).into_iter().map(|path| shown(&path));
    let known: BTreeSet<String> = own
        .chain(["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_owned))
        .collect();
    for path in texts.iter().flat_map(|folder| {
        files(folder, &["rs", "hpp", "cpp", "toml", "json", "md", "sh", "sbatch"])
    }) {
        for (number, line) in fs_err::read_to_string(&path).unwrap().lines().enumerate() {
            let words = line.split(|c: char| !(c.is_alphanumeric() || "_-./".contains(c)));
            for word in words.filter(|word| word.starts_with("docs/") && word.ends_with(".md")) {
                if !known.contains(word) {
                    missing.push(format!("{}:{} cites {word}", shown(&path), number + 1));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
