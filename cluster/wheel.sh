#!/usr/bin/env bash
# Packs the wheel of the Python package into target/wheels and prints its path, the only line on the
# standard output. Without an argument it builds the program that belongs into it: without MPI, and
# without a search path for libtorch, which the package names.
#
#   wheel.sh [BINARY]       pack this program instead (for tests)
#   DOCRE_CACHE=DIR         keeps what packs it (default: ~/.cache/docre-pretrain)
set -euo pipefail
cd "$(dirname "$0")/.."
built=target/release/docre-pretrain
binary=${1:-}
packer=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}/hatchling-1.33.0
if [ ! -e "$packer/ready" ]; then
    cluster/new-venv.sh "$packer" >&2
    "$packer/bin/pip" install --quiet --disable-pip-version-check hatchling==1.33.0 >&2
    touch "$packer/ready"
fi
mkdir -p target/wheel
if [ -z "$binary" ]; then
    # Compiled dependencies are shared with the release build, where features do not tell them
    # apart. Its program is put back afterwards.
    rm -f target/wheel/ordinary
    [ ! -e "$built" ] || ln "$built" target/wheel/ordinary
    DOCRE_RPATH='' cargo build --release --locked --no-default-features >&2
    mv -f "$built" target/wheel/built
    [ ! -e target/wheel/ordinary ] || mv -f target/wheel/ordinary "$built"
    binary=target/wheel/built
    if readelf -d "$binary" | grep -E 'R(UN)?PATH|libmpi' >&2; then
        echo "error: the program of the wheel names a folder of this machine, or MPI" >&2
        exit 1
    fi
fi
# Symbols stay, so that a panic names functions; lines of files are four fifths of the size.
objcopy --strip-debug "$binary" target/wheel/docre-pretrain
rm -rf target/wheel/built target/wheels
"$packer/bin/hatchling" build -t wheel -d target/wheels >&2
echo target/wheels/*.whl
