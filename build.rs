//! Finds libtorch, checks its version, compiles the C++ shim, and sets the run-time search path.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

/// The release of libtorch whose headers tch 0.24 and the shim are written against.
const LIBTORCH_VERSION: &str = "2.11.0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/torch/shim");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=DOCRE_DENY_WARNINGS");
    let torch = libtorch_folder();
    check_version(&torch);
    compile_shim(&torch);
    write_tables();
    declare_conditions();
    set_search_path(&torch);
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-lib=gomp");
    println!("cargo:rustc-env=DOCRE_LIBTORCH={LIBTORCH_VERSION}");
}

/// Where the program looks for libtorch when it starts: the folder it was linked with, or what
/// `DOCRE_RPATH` says. Empty, as in a wheel, it names none; `LD_LIBRARY_PATH` then must.
fn set_search_path(torch: &Path) {
    println!("cargo:rerun-if-env-changed=DOCRE_RPATH");
    let path = env::var("DOCRE_RPATH").unwrap_or_else(|_| torch.join("lib").display().to_string());
    if !path.is_empty() {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
}

/// Tells the tests what this machine has. A test that cannot run here is ignored with its reason.
fn declare_conditions() {
    println!("cargo:rerun-if-env-changed=DOCRE_SHARED");
    let data = env::var_os("DOCRE_SHARED").is_some_and(|folder| Path::new(&folder).is_dir());
    let paths = env::var_os("PATH").unwrap_or_default();
    let program = |name| env::split_paths(&paths).any(|folder| folder.join(name).exists());
    let mpirun = env::var_os("CARGO_FEATURE_MPI").is_some() && program("mpirun");
    for (name, holds) in [
        ("reference_data", data),
        ("mpirun", mpirun),
        ("chromium", program("chromium")),
        ("can_mount", has_admin_capability()),
    ] {
        println!("cargo:rustc-check-cfg=cfg({name})");
        if holds {
            println!("cargo:rustc-cfg={name}");
        }
    }
}

/// Whether this process may mount file systems (CAP_SYS_ADMIN, bit 21 of its capabilities).
#[expect(clippy::disallowed_methods, reason = "fs-err would be one more build dependency")]
fn has_admin_capability() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .is_some_and(|bits| bits >> 21 & 1 == 1)
}

/// One clear line, then out.
fn stop(message: &str) -> ! {
    println!("cargo:warning={message}");
    eprintln!("error: {message}");
    process::exit(1)
}

/// The folder torch-sys linked against, with symbolic links resolved so that the binary outlives
/// the checkout.
fn libtorch_folder() -> PathBuf {
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        stop(
            "no libtorch was found; hint: run `make setup`, or set LIBTORCH to the folder of a \
             libtorch 2.11.0",
        );
    };
    let lib = PathBuf::from(lib);
    let Ok(lib) = lib.canonicalize() else {
        stop(&format!(
            "no libtorch at {}; hint: run `make setup`, or set LIBTORCH to the folder of a \
             libtorch {LIBTORCH_VERSION}",
            lib.display()
        ));
    };
    lib.parent().map(Path::to_path_buf).unwrap_or(lib)
}

/// Reads the version from a wheel (`version.py`) or an archive (`build-version`).
#[expect(
    clippy::disallowed_methods,
    reason = "fs-err would be one more build dependency, and a file that cannot be read has its \
        own message"
)]
fn check_version(torch: &Path) {
    let wheel = fs::read_to_string(torch.join("version.py")).ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("__version__"))?;
        Some(line.split('\'').nth(1)?.to_owned())
    });
    let found = wheel.or_else(|| fs::read_to_string(torch.join("build-version")).ok());
    match found {
        Some(found) if found.trim().split('+').next() == Some(LIBTORCH_VERSION) => {}
        Some(found) => stop(&format!(
            "libtorch at {} is {}, but {LIBTORCH_VERSION} is needed; hint: unset LIBTORCH and run \
             `make setup`, or name a {LIBTORCH_VERSION}",
            torch.display(),
            found.trim()
        )),
        None => stop(&format!(
            "the libtorch at {} does not say its version; hint: run `make setup`, or name a \
             libtorch {LIBTORCH_VERSION}",
            torch.display()
        )),
    }
}

/// What the C++ compiler reports beyond `-Wall -Wextra`.
const WARNINGS: [&str; 9] = [
    "-Wpedantic",
    "-Wshadow",
    "-Wconversion",
    "-Wdouble-promotion",
    "-Wnon-virtual-dtor",
    "-Woverloaded-virtual",
    "-Wcast-qual",
    "-Wcast-align",
    "-Wundef",
];

/// A compiler with warnings on. CI sets `DOCRE_DENY_WARNINGS`, which turns them into errors.
fn compiler() -> cc::Build {
    let deny =
        env::var_os("DOCRE_DENY_WARNINGS").is_some_and(|value| !value.is_empty() && value != "0");
    let mut build = cc::Build::new();
    build.warnings(true).extra_warnings(true).warnings_into_errors(deny);
    build
}

/// A compiler of C++ that reads the headers of libtorch.
fn shim_compiler(torch: &Path) -> cc::Build {
    let include = torch.join("include");
    let mut build = compiler();
    for warning in WARNINGS {
        build.flag(warning);
    }
    // Headers of libtorch are system headers: their warnings are not ours.
    for folder in [include.join("torch/csrc/api/include"), include] {
        build.flag("-isystem").flag(folder);
    }
    build
        .cpp(true)
        .pic(true)
        .flag("-std=c++17")
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        // libtorch's thread pool is OpenMP; without this flag its `parallel_for` compiles to a
        // plain loop.
        .flag("-fopenmp");
    build
}

fn compile_shim(torch: &Path) {
    shim_compiler(torch).opt_level(3).file("src/torch/shim/shim.cpp").compile("docre_shim");
    // For the headers that are named gloo/….
    let mut c10d = shim_compiler(torch);
    c10d.include("src/torch/shim").define("USE_C10D_GLOO", None);
    c10d.opt_level(1).file("src/torch/shim/c10d.cpp").compile("docre_c10d");
    // A library of its own, of which tests alone take something.
    shim_compiler(torch).opt_level(1).file("src/torch/shim/mock_gpu.cpp").compile("docre_mock_gpu");
    if env::var_os("CARGO_FEATURE_MPI").is_some() {
        let mpicc = env::var("MPICC").unwrap_or_else(|_| "mpicc".into());
        println!("cargo:rerun-if-env-changed=MPICC");
        compiler().compiler(mpicc).file("src/torch/shim/mpi_in_place.c").compile("docre_mpi");
    }
}

/// Makes the Rust side of `tables.hpp`, where tables, numbers and choices that both languages use
/// are stated.
#[expect(
    clippy::disallowed_methods,
    reason = "fs-err would be one more build dependency, and failures have their own messages"
)]
fn write_tables() {
    const SOURCE: &str = "src/torch/shim/tables.hpp";
    let text = fs::read_to_string(SOURCE)
        .unwrap_or_else(|error| stop(&format!("{SOURCE} cannot be read: {error}")));
    let rust = tables(&text).unwrap_or_else(|line| {
        stop(&format!("{SOURCE}: this line has none of the forms that build.rs knows: {line}"))
    });
    let target = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("tables.rs");
    fs::write(&target, rust)
        .unwrap_or_else(|error| stop(&format!("{} cannot be written: {error}", target.display())));
}

/// The declarations of `text` in Rust, or the line that is not understood. The comment above a
/// struct or an enum documents it, as does the comment behind a member or a constant.
fn tables(text: &str) -> Result<String, &str> {
    let mut rust = String::new();
    let mut above = Vec::new(); // lines of comment above
    let mut columns = None; // (name, columns) of the struct that is open
    for line in text.lines() {
        let (code, comment) =
            line.split_once("//").map_or((line, ""), |(code, comment)| (code, comment.trim()));
        let words: Vec<&str> =
            code.split([' ', ';', ',']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            [] if comment.is_empty() => above.clear(),
            [] => above.push(comment),
            ["#pragma" | "#include" | "namespace", ..] => {}
            ["}"] if code.trim() == "}" => {} // of the namespace
            ["struct", name, "{"] => {
                rust += &format!(
                    "/// {}\n#[derive(Clone, Copy, Debug, PartialEq, Eq)]\npub struct {name} {{\n",
                    above.join(" ")
                );
                columns = Some((name, Vec::new()));
            }
            ["enum", "class", name, ":", "int64_t", "{"] => {
                rust += &format!(
                    "/// {}\n#[derive(Clone, Copy, Debug, PartialEq, Eq)]\n#[repr(i64)]\npub enum \
                     {name} {{\n",
                    above.join(" ")
                );
            }
            ["int64_t", column] if !comment.is_empty() => {
                rust += &format!("    /// {comment}\n    pub {column}: i64,\n");
                columns.as_mut().ok_or(line)?.1.push(column);
            }
            [value] if value.starts_with('k') && !comment.is_empty() => {
                rust += &format!("    /// {comment}\n    {},\n", &value[1..]);
            }
            ["}"] => {
                rust += "}\n";
                if let Some((name, columns)) = columns.take() {
                    let (count, numbers) = (columns.len(), columns.join(", self."));
                    rust += &format!(
                        "impl TableRow<{count}> for {name} \
                         {{\n    fn columns(&self) -> [i64; {count}] {{\n"
                    );
                    rust += &format!("        [self.{numbers}]\n    }}\n}}\n");
                }
            }
            ["constexpr", kind @ ("int64_t" | "double"), name, "=", value]
                if name.starts_with('k') && !comment.is_empty() =>
            {
                let kind = if kind == "double" { "f64" } else { "i64" };
                rust += &format!(
                    "/// {comment}\npub const {}: {kind} = {value};\n",
                    constant_name(&name[1..])
                );
            }
            _ => return Err(line),
        }
    }
    Ok(rust)
}

/// `LstmWeights` → `LSTM_WEIGHTS`.
fn constant_name(name: &str) -> String {
    let mut upper = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !upper.is_empty() {
            upper.push('_');
        }
        upper.push(letter.to_ascii_uppercase());
    }
    upper
}
