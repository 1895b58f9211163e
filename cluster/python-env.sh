#!/usr/bin/env bash
# Keeps a Python environment that tests the Python package in the per-user cache and prints its
# interpreter, the only line on the standard output. torch, numpy and pandas are those of
# interop-env.sh.
#
#   DOCRE_CACHE=DIR         cache (default: ~/.cache/docre-pretrain)
set -euo pipefail
cache=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}
venv=$cache/python-1
packages=('pytest==9.2.0' 'mypy==2.4.1' 'ruff==0.17.6' 'spacy==3.8.18')
interop=$("$(dirname "$0")/interop-env.sh")
site='import site; print(site.getsitepackages()[0])'
if [ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]} $interop" ]; then
    {
        find "$cache" -maxdepth 1 -name 'python-*' ! -path "$venv" -exec rm -rf {} +
        [ -e "$venv/bin/python" ] || "$interop" -m venv --without-pip "$venv"
        "$interop" -c "$site" >"$("$venv/bin/python" -c "$site")/interop.pth"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
        echo "${packages[*]} $interop" >"$venv/packages"
    } >&2
fi
echo "$venv/bin/python"
