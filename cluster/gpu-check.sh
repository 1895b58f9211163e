#!/usr/bin/env bash
# Checks the program on a machine with one GPU, in under eight minutes, and measures it. Needs bash,
# timeout, and a Python whose torch is 2.11.0 with CUDA: no Rust, no MPI, no network.
#
#   cluster/gpu-pack.sh                  on a machine that builds: makes gpu-check.tar.gz
#   tar xzf gpu-check.tar.gz && docre-gpu/gpu-check.sh     on the machine with the GPU
#
#   OUT=DIR        logs and result.json (default: gpu-check-out)
#   DEVICE=cuda    or cuda:N; cpu runs the same on a CPU
#   SHORT=1        less of everything, in more time: tests this script, not the machine
#   LIMIT=460      seconds of all phases together
#   PYTHON=python3 the Python with torch
#   BINARY=FILE PARITY=DIR JOBS=DIR   the program, parity cases and recipes (default: beside this script, else those
#                                     of the checkout)
#
# Exit codes: 0 every check passed; 1 a check failed; 2 none failed, but phases were skipped for want of time.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
script=$here/$(basename "${BASH_SOURCE[0]}")
root=$here/..
[ -x "$here/docre-pretrain" ] && root=$here
pick() { for path in "$@"; do [ -e "$path" ] && { realpath "$path"; return; }; done; printf '%s' "$1"; }
export OUT DEVICE SHORT PYTHON BINARY PARITY JOBS
OUT=$(mkdir -p "${OUT:-gpu-check-out}" && cd "${OUT:-gpu-check-out}" && pwd) || exit 1
DEVICE=${DEVICE:-cuda} SHORT=${SHORT:-} PYTHON=${PYTHON:-python3}
BINARY=${BINARY:-$(pick "$here/docre-pretrain" "$root/target/release/docre-pretrain")}
PARITY=${PARITY:-$(pick "$root/parity" "${DOCRE_SHARED:-$root/../shared}/parity")}
JOBS=${JOBS:-$(pick "$root/jobs")}
work=$OUT/work
# A CPU with other work to do gets more time, for less.
slack=1 few=()
if [ -n "$SHORT" ]; then
    slack=10
    few=(--set data.synth.distant=40 --set rank.steps=3 --set pretrain.steps=3 --set finetune.steps=3)
fi
LIMIT=${LIMIT:-$((slack * 460))}

result() { "$PYTHON" "$here/gpu_result.py" "$@"; }
run() { "$BINARY" "$@"; }
# Numbers that depend on nothing but the device.
plain=("${few[@]}" --set encoder.dropout=0 --set rank.precision=fp32 --set pretrain.precision=fp32 --set finetune.precision=fp32)

# The torch of the Python, without importing it.
torch_folder() {
    "$PYTHON" -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")' 2>/dev/null
}

phase_machine() {
    run --version || return
    if [ "$DEVICE" != cpu ]; then
        nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$OUT/gpu.csv"
        "$PYTHON" -c 'import importlib.metadata as m; print("torch", m.version("torch"))' | tee "$OUT/torch.txt"
    fi
    run doctor --device "$DEVICE" --json "$OUT/doctor.json" && result doctor
}

phase_operations() {
    local rounds=2
    [ -n "$SHORT" ] && rounds=1
    run selftest --device "$DEVICE" --rounds "$rounds" --json "$OUT/selftest.json"
}

phase_parity() {
    local cases=$PARITY
    if [ ! -d "$cases" ]; then
        echo "there are no parity cases at $cases"
        return 1
    fi
    if [ -n "$SHORT" ]; then
        cases=$work/cases
        mkdir -p "$cases"
        for name in atlop baseline-bilstm dsdocre-ranker; do ln -sfn "$PARITY/$name" "$cases/$name"; done
    fi
    local failed=0
    run verify --all "$cases" --device "$DEVICE" --json "$OUT/parity.json" || failed=1
    # Encoders of other families, where they were packed.
    if [ -z "$SHORT" ] && [ -d "$PARITY-encoders" ]; then
        run verify --all "$PARITY-encoders" --device "$DEVICE" --json "$OUT/parity-encoders.json" || failed=1
    fi
    return "$failed"
}

# Stops a run when it has trained for a moment.
stopped_run() {
    run run "$JOBS/smoke.toml" --run-dir "$1" --set device="$DEVICE" "${plain[@]}" &
    local pid=$! code=0
    until [ -s "$1/metrics.jsonl" ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    touch "$1/STOP" 2>/dev/null
    wait "$pid" || code=$?
    echo "stopped with $code"
    [ "$code" -eq 75 ]
}

phase_training() {
    rm -rf "$work"/smoke-*
    run run "$JOBS/smoke.toml" --run-dir "$work/smoke-cpu" --set device=cpu "${plain[@]}" || return
    run run "$JOBS/smoke.toml" --run-dir "$work/smoke-whole" --set device="$DEVICE" "${plain[@]}" || return
    stopped_run "$work/smoke-parts" || return
    rm -f "$work/smoke-parts/STOP"
    run run "$JOBS/smoke.toml" --run-dir "$work/smoke-parts" --resume --set device="$DEVICE" "${plain[@]}" || return
    result losses "$work/smoke-cpu" "$work/smoke-whole" "$work/smoke-parts"
}

# One line of the benchmark: pairs of documents a step, tokens a micro-batch, further flags.
bench_of() {
    local name=$1 batch=$2 budget=$3 encoder=base documents=1000
    shift 3
    [ -n "$SHORT" ] && encoder=tiny documents=30
    run bench pretrain --encoder "$encoder" --documents "$documents" --device "$DEVICE" --set pretrain.batch="$batch" \
        --set pretrain.tokens_per_micro_batch="$budget" --json "$OUT/bench-$name.json" "$@"
}

phase_speed() {
    local failed=0
    rm -f "$OUT"/bench-*.json
    bench_of 2-8k 2 8192 || failed=1
    if [ -z "$SHORT" ]; then
        bench_of 16-8k 16 8192 || failed=1
        bench_of 16-64k 16 65536 || failed=1
        bench_of 128-64k 128 65536 || failed=1
        bench_of 128-8k 128 8192 || failed=1
        bench_of 128-64k-tf32 128 65536 --tf32 || failed=1
    fi
    result speed && [ "$failed" -eq 0 ]
}

phase_quality() {
    local recipe=quickstart
    # A CPU takes minutes for the quickstart.
    [ -n "$SHORT" ] && recipe=smoke
    rm -rf "$work/quality"
    run run "$JOBS/$recipe.toml" --run-dir "$work/quality" --set device="$DEVICE" "${few[@]}" || return
    cp "$work/quality/scores.json" "$OUT/scores.json"
    result quality
}

phase_systems() {
    local flags=(--documents 40 --set finetune.epochs=3 --set inference.epochs=3)
    [ -n "$SHORT" ] && flags=(--documents 10 --set finetune.epochs=1 --set inference.epochs=1 --systems atlop,lstm)
    run bench systems "${flags[@]}" --device "$DEVICE" --json "$OUT/systems.json" && result systems
}

# A phase as a process of its own, which `timeout` can end.
if [ "${1:-}" = --phase ]; then
    "phase_$2"
    exit
fi

# Runs a phase within its limit unless the sum would pass the total, and records it.
phase() {
    local name=$1 limit=$((slack * $2)) started=$SECONDS status=ok code=0
    if [ $((SECONDS + limit)) -gt "$LIMIT" ]; then
        echo "gpu-check: $name: skipped, $SECONDS of $LIMIT s are used" >&2
        result phase "$name" 0 0 skipped
        return
    fi
    echo "gpu-check: $name, at most $limit s" >&2
    timeout --kill-after=5 "$limit" "$script" --phase "$name" >"$OUT/$name.log" 2>&1 || code=$?
    [ "$code" -ne 0 ] && status=failed
    [ "$code" -eq 124 ] || [ "$code" -eq 137 ] && status=timed-out
    [ "$status" = ok ] || tail -5 "$OUT/$name.log" >&2
    result phase "$name" "$code" $((SECONDS - started)) "$status"
    echo "gpu-check: $name: $status after $((SECONDS - started)) s" >&2
    return "$code"
}

mkdir -p "$work"
rm -f "$OUT"/*.json "$OUT"/*.log "$OUT/gpu.csv" "$OUT/torch.txt"
if [ "$DEVICE" != cpu ]; then
    folder=$(torch_folder)
    [ -n "$folder" ] || echo "gpu-check: $PYTHON has no torch" >&2
    export LD_LIBRARY_PATH="$folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
result begin "$(cat "$here/COMMIT" 2>/dev/null || git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)"
# A limit stands with each phase; they come to 450 s. Nothing else is worth the time where the first fails.
if phase machine 20; then
    phase operations 60
    phase parity 50
    phase training 50
    phase speed 110
    phase quality 100
    phase systems 60
fi
rm -rf "$work"
result end
