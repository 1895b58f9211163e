#!/usr/bin/env bash
# Checks licences, sources and banned crates of the dependencies with cargo-deny, which is built once
# and kept in the cache.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
cache=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}
deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
    deny=$cache/cargo-deny-$version/bin/cargo-deny
    # A debug build without the code that fetches advisories suffices: it runs for a second.
    [ -x "$deny" ] || cargo install --quiet --locked --debug --no-default-features \
        --version "$version" --root "$cache/cargo-deny-$version" cargo-deny
fi
# cargo-deny checks the dependencies of every platform; a build fetches only those of this one.
cargo fetch --quiet --locked
"$deny" --locked --offline check licenses bans sources
