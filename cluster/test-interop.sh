#!/usr/bin/env bash
# Tests that checkpoints open in Hugging Face transformers with the same hidden states, that
# tokenizers give the same pieces as there, that shards and tables of documents open in pyarrow with
# verified checksums, that datasets reads them with typed columns, that a torch with CUDA is opened,
# and that the launch files of `submit` are what their schedulers expect.
set -euo pipefail
binary=$(realpath "$1")
here=$(dirname "$0")
python=$("$here/interop-env.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$("$here/interop-env.sh" launch)" "$here/test_launch_files.py" "$binary" "$here/../jobs/smoke.toml"
"$binary" run "$here/../jobs/smoke.toml" --run-dir "$work/run" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$python" "$here/test_interop.py" "$binary" "$work/run"
# A torch with CUDA is opened where there is no GPU, and CUDA itself says why it does not work.
lib=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')/lib
if [ -e "$lib/libtorch_cuda.so" ] && [ ! -e /dev/nvidia0 ]; then
    said=$(LD_LIBRARY_PATH=$lib "$binary" doctor --device cuda 2>&1) && exit 1
    grep -q "CUDA cannot be used: .*CUDA's error" <<<"$said" || { echo "$said"; exit 1; }
fi
# The same run on two ranks of torchrun: equal losses up to the rounding of sums.
"$python" -m torch.distributed.run --no-python --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint localhost:0 \
    "$binary" run "$here/../jobs/smoke.toml" --run-dir "$work/torchrun" --set threads=1 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$binary" inspect "$work/run" "$work/torchrun" >"$work/log"
[ "$(grep -c 'the same documents in the same order' "$work/log")" -eq 5 ] || { cat "$work/log"; exit 1; }
echo "two ranks of torchrun"
# Real weights, as good as unchanged by two steps at a rate of nearly 0. The large MPNet counts where
# `make encoder` has brought it.
real=(minilm)
[ ! -d "${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}/encoders/mpnet-base" ] || real+=(mpnet-base)
for name in "${real[@]}"; do
    rm -rf "$work/real"
    "$binary" run "$here/../jobs/smoke.toml" --run-dir "$work/real" --set encoder.name="$("$here/encoder.sh" "$name")" \
        --set 'variants=["baseline"]' --set finetune.steps=2 --set finetune.learning_rate=1e-12 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    echo "$name"
    "$python" "$here/test_interop.py" "$binary" "$work/real"
done
# Families of encoders: presets with new weights, and, where the reference data is at hand, the tiny
# folders with their own tokenizers. (transformers counts MPNet's positions without piece 1, which is
# the unknown piece in the vocabulary of the generated documents.)
families=(roberta-tiny xlm-roberta-tiny electra-tiny distilbert-tiny albert-tiny mpnet-tiny deberta-tiny xlnet-tiny modernbert-tiny)
for folder in "${DOCRE_SHARED:-/nowhere}"/parity-encoders/encoder-*/model; do [ -d "$folder" ] && families+=("$folder"); done
for family in "${families[@]}"; do
    settings=(--set encoder.name="$family" --set encoder.truncate=true --set 'variants=["baseline"]' --set finetune.steps=2)
    [ -d "$family" ] && settings+=(--set data.tokenizer="$family")
    rm -rf "$work/family"
    "$binary" run "$here/../jobs/smoke.toml" --run-dir "$work/family" "${settings[@]}" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    echo "$family"
    "$python" "$here/test_interop.py" "$binary" "$work/family"
done
"$python" "$here/test_shards.py" "$work/run"
"$python" "$here/test_tokenizers.py" "$binary"
# The Python example of docs/from-pytorch.md, on the export that it speaks of.
"$binary" export --checkpoint "$work/run/checkpoints/pretrain/step-00000006" --output "$work/encoder"
example=$(sed -n '/^```python$/,/^```$/{/^```/d;p}' "$here/../docs/from-pytorch.md")
(cd "$work" && "$python" -c "$example")
# The cards of exports, as the Hub's own library reads them.
for stage in rank pretrain finetune-pretrained; do
    "$binary" export --checkpoint "$(ls -d "$work/run/checkpoints/$stage"/step-* | tail -n 1)" \
        --output "$work/cards/$stage" --license mit --language en --dataset org/docs --dataset docs
done
"$python" "$here/test_cards.py" "$work"/cards/*
world=$work/run/data/world
"$binary" convert --format docred --to parquet --input "$world/dev.json" --output "$work/dev.parquet"
"$python" "$here/test_documents.py" "$world/dev.json" "$work/dev.parquet"
"$python" "$here/test_datasets.py" "$world/dev.json" "$work/run/data/shards/dev" "$work/dev.parquet" \
    "$world/train_distant.json" "$work/run/labels.parquet"
# What was predicted for test, as a graph.
"$binary" graph --predictions "$work/run/predictions/baseline-test.json" --documents "$world/test.json" \
    --relations "$world/rel_info.json" --output "$work/graph"
"$python" "$here/test_graph.py" "$work/graph"
