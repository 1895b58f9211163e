#!/usr/bin/env bash
# Keeps a Python environment in the per-user cache and prints its interpreter, the only line on the
# standard output.
#
#   interop-env.sh          torch, transformers, pyarrow
#   interop-env.sh launch   the schemas of launch files
#   DOCRE_CACHE=DIR         cache (default: ~/.cache/docre-pretrain)
set -euo pipefail
cache=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}
name=${1:-interop}
case $name in
    interop) packages=('torch==2.11.0' 'transformers==5.24.0' 'numpy<3' safetensors 'pyarrow==26.0.1' 'datasets==4.4.1' 'rdflib==7.5.0' networkx) ;;
    launch) packages=('kubernetes-validate==1.37.0' 'kubeflow-trainer-api==2.3.0' 'skypilot==0.14.1' jsonschema PyYAML) ;;
    *) echo "usage: $0 [launch]" >&2; exit 2 ;;
esac
venv=$cache/$name-3
# An environment of an earlier version is brought up to date in place: torch is large.
if [ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    {
        mkdir -p "$cache"
        find "$cache" -maxdepth 1 -name "$name-*" ! -path "$venv" -exec rm -rf {} +
        [ -e "$venv/ready" ] || "$(dirname "$0")/new-venv.sh" "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
        touch "$venv/ready"
        echo "${packages[*]}" >"$venv/packages"
    } >&2
fi
echo "$venv/bin/python"
