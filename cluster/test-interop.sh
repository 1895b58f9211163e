#!/usr/bin/env bash
# Tests that checkpoints open in Hugging Face transformers with the same hidden states, that
# tokenizers give the same pieces as there, that shards and tables of documents open in pyarrow with
# verified checksums, and that datasets reads them with typed columns. Keeps a Python environment in
# the cache.
set -euo pipefail
binary=$(realpath "$1")
cache=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}
venv=$cache/interop-3
packages=('torch==2.11.0' 'transformers==5.24.0' 'numpy<3' safetensors 'pyarrow==26.0.1' 'datasets==4.4.1')
# An environment of an earlier version is brought up to date in place: torch is large.
if [ "$(cat "$venv/packages" 2>/dev/null)" != "${packages[*]}" ]; then
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
        $sudo apt-get update -qq
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
    fi
    find "$cache" -maxdepth 1 -name 'interop-*' ! -path "$venv" -exec rm -rf {} +
    [ -e "$venv/ready" ] || { rm -rf "$venv"; python3 -m venv "$venv"; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
    touch "$venv/ready"
    echo "${packages[*]}" >"$venv/packages"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$binary" run "$(dirname "$0")/../jobs/smoke.toml" --run-dir "$work/run" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$venv/bin/python" "$(dirname "$0")/test_interop.py" "$binary" "$work/run"
# Real weights, as good as unchanged by two steps at a rate of nearly 0.
"$binary" run "$(dirname "$0")/../jobs/smoke.toml" --run-dir "$work/real" --set encoder.name="$("$(dirname "$0")/encoder.sh")" \
    --set 'variants=["baseline"]' --set finetune.steps=2 --set finetune.learning_rate=1e-12 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$venv/bin/python" "$(dirname "$0")/test_interop.py" "$binary" "$work/real"
# Families of encoders: presets with new weights, and, where the reference data is at hand, the tiny
# folders with their own tokenizers. (transformers counts MPNet's positions without piece 1, which is
# the unknown piece in the vocabulary of the generated documents.)
families=(roberta-tiny xlm-roberta-tiny electra-tiny distilbert-tiny albert-tiny mpnet-tiny deberta-tiny xlnet-tiny modernbert-tiny)
for folder in "${DOCRE_SHARED:-/nowhere}"/parity-encoders/encoder-*/model; do [ -d "$folder" ] && families+=("$folder"); done
for family in "${families[@]}"; do
    settings=(--set encoder.name="$family" --set encoder.truncate=true --set 'variants=["baseline"]' --set finetune.steps=2)
    [ -d "$family" ] && settings+=(--set data.tokenizer="$family")
    rm -rf "$work/family"
    "$binary" run "$(dirname "$0")/../jobs/smoke.toml" --run-dir "$work/family" "${settings[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    echo "$family"
    "$venv/bin/python" "$(dirname "$0")/test_interop.py" "$binary" "$work/family"
done
"$venv/bin/python" "$(dirname "$0")/test_shards.py" "$work/run"
"$venv/bin/python" "$(dirname "$0")/test_tokenizers.py" "$binary"
# The Python example of docs/from-pytorch.md, on the export that it speaks of.
"$binary" export --checkpoint "$work/run/checkpoints/pretrain/step-00000006" --output "$work/encoder"
example=$(sed -n '/^```python$/,/^```$/{/^```/d;p}' "$(dirname "$0")/../docs/from-pytorch.md")
(cd "$work" && "$venv/bin/python" -c "$example")
world=$work/run/data/world
"$binary" convert --format docred --to parquet --input "$world/dev.json" --output "$work/dev.parquet"
"$venv/bin/python" "$(dirname "$0")/test_documents.py" "$world/dev.json" "$work/dev.parquet"
"$venv/bin/python" "$(dirname "$0")/test_datasets.py" "$world/dev.json" "$work/run/data/shards/dev" "$work/dev.parquet" \
    "$world/train_distant.json" "$work/run/labels.parquet"
