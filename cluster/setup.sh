#!/usr/bin/env bash
# Installs what the machine lacks: system packages (as root or with sudo) and libtorch (into a
# per-user cache). Skips what is there already.
#
#   LIBTORCH=DIR       use this libtorch 2.11.0
#   DOCRE_PYTHON=PATH  use the torch 2.11.0 of this Python, which may be a CUDA build
#   DOCRE_CACHE=DIR    cache of the download (default: ~/.cache/docre-pretrain)
set -euo pipefail
cd "$(dirname "$0")/.."
version=2.11.0
cache=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}
say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

install_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "missing packages: ${missing[*]}" "ask an administrator to install them, or run as root"
        sudo=sudo
    fi
    say "installing ${missing[*]}"
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# First, because nothing here installs it.
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
command -v cargo >/dev/null || die "cargo is not on PATH" "install Rust $rust or newer from https://rustup.rs"
found=$(cargo --version | cut -d' ' -f2)
[ "$(printf '%s\n' "$rust" "$found" | sort -V | head -n 1)" = "$rust" ] || die "cargo is $found, but Rust $rust or newer is needed" "install it from https://rustup.rs, or put its folder first on PATH"

# Compiler and MPI. python3 is needed only to unpack wheels.
command -v dpkg-query >/dev/null && install_packages ca-certificates g++ make pkg-config libclang-dev openmpi-bin libopenmpi-dev

# link TORCH_FOLDER: makes .libtorch/torch, where .cargo/config.toml looks. The torch of PyPI finds
# its CUDA libraries two folders up.
link() {
    mkdir -p .libtorch.new && ln -sfn "$1" .libtorch.new/torch
    if [ -d "$1/../nvidia" ]; then ln -sfn "$(realpath "$1/../nvidia")" .libtorch.new/nvidia; else mkdir -p .libtorch.new/nvidia; fi
    rm -rf .libtorch && mv -T .libtorch.new .libtorch
}

# Prints the folder of a Python's torch if it is the right release.
torch_of_python() {
    "$1" - "$version" <<'PY' 2>/dev/null
import importlib.util, pathlib, re, sys
spec = importlib.util.find_spec("torch")
folder = pathlib.Path(spec.origin).parent
found = re.search(r"__version__ = '([^'+]+)", (folder / "version.py").read_text())[1]
sys.exit(1) if found != sys.argv[1] else print(folder)
PY
}

if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || die "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so" "unset it, or name a libtorch $version"
    say "using LIBTORCH=$LIBTORCH"
    link "$(realpath "$LIBTORCH")"
    exit 0
fi
if [ -n "${DOCRE_PYTHON:-}" ]; then
    folder=$(torch_of_python "$DOCRE_PYTHON") || die "DOCRE_PYTHON=$DOCRE_PYTHON has no torch $version" "install torch==$version there, or unset DOCRE_PYTHON"
    say "using the torch of $DOCRE_PYTHON"
    link "$folder"
    exit 0
fi

home=$cache/libtorch-$version
if [ ! -e "$home/torch/version.py" ]; then
    command -v dpkg-query >/dev/null && { python3 -m pip --version >/dev/null 2>&1 || install_packages python3 python3-pip; }
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/.download.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "fetching libtorch $version (about 545 MB) into $home"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp --python-version 3.11 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$work" "torch==$version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
    for wheel in "$work"/*.whl; do python3 -m zipfile -e "$wheel" "$work/unpacked" && rm "$wheel"; done
    # Keep what a machine without a GPU needs. On a GPU machine, use its own torch through
    # DOCRE_PYTHON or LIBTORCH.
    mkdir -p "$work/home/torch/lib" "$work/home/nvidia"
    mv "$work"/unpacked/torch/{include,version.py} "$work/home/torch/"
    for library in libtorch_cpu.so libc10.so libtorch.so libgomp.so.1 libshm.so; do
        mv "$work/unpacked/torch/lib/$library" "$work/home/torch/lib/"
    done
    [ ! -d "$work/unpacked/nvidia" ] || mv "$work"/unpacked/nvidia/* "$work/home/nvidia/"
    rm -rf "$home"
    mv "$work/home" "$home"
fi
link "$home/torch"
say "libtorch $version at $home"
