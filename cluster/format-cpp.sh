#!/usr/bin/env bash
# Checks that the C++ of the shim is formatted as .clang-format says; `cluster/format-cpp.sh fix` formats it. The pinned clang-format is
# installed once and kept in the cache, in a Python environment of its own: other releases format differently.
set -euo pipefail
cd "$(dirname "$0")/.."
version=21.1.8
cache=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}
format=$(command -v clang-format || true)
if [ -z "$format" ] || ! "$format" --version | grep -qF "version $version"; then
    venv=$cache/clang-format-$version
    format=$venv/bin/clang-format
    if [ ! -x "$format" ]; then
        if ! python3 -c 'import ensurepip' 2>/dev/null; then
            sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
            $sudo apt-get update -qq
            $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
        fi
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "clang-format==$version"
    fi
fi
mode=(--dry-run --Werror)
[ "${1:-}" = fix ] && mode=(-i)
"$format" --style=file "${mode[@]}" src/torch/shim/*.hpp src/torch/shim/*.cpp src/torch/shim/*.c
