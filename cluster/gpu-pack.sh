#!/usr/bin/env bash
# Packs what gpu-check.sh needs into one archive under 64 MiB: the program built without MPI, parity
# cases, recipes and the check itself.
#
#   gpu-pack.sh [ARCHIVE]   default: target/gpu-check.tar.gz
#
#   BINARY=FILE    a program that was built without MPI (default: builds one in target/without-mpi)
#   PARITY=DIR     parity cases (default: parity in DOCRE_SHARED)
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'gpu-pack: %s\n' "$*" >&2; }
die() { printf 'gpu-pack: error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }
archive=${1:-target/gpu-check.tar.gz}
parity=${PARITY:-${DOCRE_SHARED:-../shared}/parity}
[ -d "$parity" ] || die "there are no parity cases at $parity" "set PARITY or DOCRE_SHARED"
if [ -z "${BINARY:-}" ]; then
    cargo build --release --locked --no-default-features --target-dir target/without-mpi
    BINARY=target/without-mpi/release/docre-pretrain
fi
if readelf -d "$BINARY" | grep -q 'NEEDED.*libmpi'; then
    die "$BINARY needs an MPI library, which a GPU machine may lack" "unset BINARY, or build with --no-default-features"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
home=$work/docre-gpu
mkdir -p "$home/jobs"
strip -o "$home/docre-pretrain" "$BINARY"
cp cluster/gpu-check.sh cluster/gpu_result.py "$home"
cp jobs/smoke.toml jobs/quickstart.toml "$home/jobs"
cp -rL "$parity" "$home/parity"
[ ! -d "$parity-encoders" ] || cp -rL "$parity-encoders" "$home/parity-encoders"
git rev-parse HEAD >"$home/COMMIT" 2>/dev/null || echo unknown >"$home/COMMIT"
mkdir -p "$(dirname "$archive")"
tar czf "$work/archive" -C "$work" docre-gpu
bytes=$(stat -c %s "$work/archive")
[ "$bytes" -lt $((64 << 20)) ] || die "the archive has $bytes bytes, 64 MiB are too many" "leave out parity cases (PARITY)"
mv "$work/archive" "$archive"
say "$archive, $((bytes >> 20)) MiB: unpack it on the GPU machine and start docre-gpu/gpu-check.sh"
