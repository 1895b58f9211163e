#!/usr/bin/env bash
# Keeps a Python environment with torch and transformers in the per-user cache and prints its
# interpreter, the only line on the standard output.
#
#   DOCRE_CACHE=DIR         cache (default: ~/.cache/docre-pretrain)
set -euo pipefail
cache=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}
venv=$cache/interop-3
packages=('torch==2.11.0' 'transformers==5.24.0' 'numpy<3' safetensors 'pyarrow==26.0.1' 'datasets==4.4.1'
    'rdflib==7.5.0' networkx)
# An environment of an earlier version is brought up to date in place: torch is large.
if [ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    {
        mkdir -p "$cache"
        find "$cache" -maxdepth 1 -name 'interop-*' ! -path "$venv" -exec rm -rf {} +
        [ -e "$venv/ready" ] || "$(dirname "$0")/new-venv.sh" "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
        touch "$venv/ready"
        echo "${packages[*]}" >"$venv/packages"
    } >&2
fi
echo "$venv/bin/python"
