"""Checks what the phases of gpu-check.sh left in $OUT and keeps result.json there.

Standard library only. Every call reads result.json, adds to it, and puts the new file in its place
as a whole.
"""

import hashlib
import json
import math
import os
import pathlib
import sys

OUT = pathlib.Path(os.environ["OUT"])
SHORT = bool(os.environ.get("SHORT"))
ON_GPU = os.environ["DEVICE"] != "cpu"
RESULT = OUT / "result.json"
# NCCL 2.28.3 to 2.28.8 lose or hang ranks.
LEAST_NCCL = (2, 28, 9)
# Losses of the same steps: on another device, and after stopping and resuming on the same.
OF_DEVICES, OF_RESUMING = 1e-4, 1e-5
MOST_MEMORY_MB = 75_000
LEAST_F1 = 70.0


def fail(message):
    print(f"check failed: {message}")
    sys.exit(1)


def read(name):
    return json.loads((OUT / name).read_text())


def optional(name):
    return read(name) if (OUT / name).exists() else None


def text(name):
    path = OUT / name
    return path.read_text().strip() if path.exists() else None


def write(result):
    whole = OUT / "result.json.new"
    whole.write_text(json.dumps(result, indent=1) + "\n")
    whole.replace(RESULT)


def begin(commit):
    binary = pathlib.Path(os.environ["BINARY"])
    digest = hashlib.sha256(binary.read_bytes()).hexdigest() if binary.exists() else None
    device, short = os.environ["DEVICE"], SHORT
    write({"commit": commit, "binary_sha256": digest, "device": device, "short": short, "phases": {}})


def phase(name, code, seconds, status):
    result = read("result.json")
    result["phases"][name] = {"rc": int(code), "seconds": int(seconds), "status": status}
    write(result)


def doctor():
    """One device, a suitable NCCL, and products in every format."""
    found = read("doctor.json")
    rates = found["matmul_gflops"]
    for name in ["fp32", "bf16"] + (["tf32"] if ON_GPU else []):
        if not rates.get(name, 0) > 0:
            fail(f"no rate of {name} products")
    if not ON_GPU:
        return
    if found["cuda_devices"] < 1:
        fail("there is no CUDA device")
    nccl = found["nccl"]
    if nccl is None or tuple(int(part) for part in nccl.split(".")) < LEAST_NCCL:
        fail(f"NCCL is {nccl}, not {'.'.join(map(str, LEAST_NCCL))} or later")
    if not rates["fp32"] < rates["tf32"] < rates["bf16"]:
        fail(f"products in fewer bits are not faster: {rates}")


def metrics(run):
    """The loss of every step; steps that were done again count with their last line."""
    losses = {}
    for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines():
        line = json.loads(line)
        if "loss" in line:
            # A number that is not finite is written as null.
            if line["loss"] is None or not math.isfinite(line["loss"]):
                fail(f"the loss of step {line['step']} of {line['stage']} is {line['loss']}")
            losses[line["stage"], line["step"]] = line["loss"]
    return losses


def difference(one, other, stages):
    """The largest difference of losses over the stages, and where it is."""
    if one.keys() != other.keys():
        fail(f"other steps: {sorted(one.keys() ^ other.keys())}")
    chosen = [key for key in one if stages is None or key[0] in stages]
    if not chosen:
        fail(f"no step of {stages}")
    return max((abs(one[key] - other[key]), key) for key in chosen)


def losses(cpu, whole, parts):
    """The same losses on the CPU and on the device, and after stopping and resuming.

    Between devices only stages before the ranker chooses pairs must agree: two pairs with nearly
    the same score may change places, and later stages then train on others.
    """
    cpu, whole, parts = metrics(cpu), metrics(whole), metrics(parts)
    between, where = difference(cpu, whole, {"rank", "finetune-baseline"})
    overall, _ = difference(cpu, whole, None)
    resumed, place = difference(whole, parts, None)
    found = {"cpu_and_device": between, "all_stages": overall, "resumed": resumed}
    (OUT / "losses.json").write_text(json.dumps(found))
    print(found)
    if not between <= OF_DEVICES:
        fail(f"the losses of CPU and device differ by {between} at {where}")
    if not resumed <= OF_RESUMING:
        fail(f"the losses of a resumed run differ by {resumed} at {place}")


def bench_rows():
    rows = []
    for path in sorted(OUT.glob("bench-*.json")):
        table = json.loads(path.read_text())
        keys = ["matmul_gflops", "precision"]
        for row in table["rows"]:
            if row["name"] == "pretrain":
                rows.append({"case": path.stem.removeprefix("bench-"), **row} | {key: table[key] for key in keys})
    return rows


def speed():
    """Something was measured, and memory stays within bounds. Speeds are reported."""
    rows = bench_rows()
    if not rows:
        fail("nothing was measured")
    for row in rows:
        if not (math.isfinite(row["documents_per_s"]) and row["documents_per_s"] > 0):
            fail(f"{row['case']}: {row['documents_per_s']} documents a second")
        if not row["peak_memory_mb"] < MOST_MEMORY_MB:
            fail(f"{row['case']}: {row['peak_memory_mb']} MB")


def dev_f1():
    return {
        name.removesuffix("-dev"): 100 * row["official"]["f1"]
        for name, row in read("scores.json").items()
        if row["split"] == "dev"
    }


def quality():
    """Pre-training helps, on data where it is known to."""
    scores = dev_f1()
    print(scores)
    if not scores:
        fail("there are no scores of dev")
    if SHORT:
        return
    plain, best = scores["baseline"], scores["pretrained"]
    if not (best >= LEAST_F1 and best > plain):
        fail(f"F1 with pre-training {best}, without {plain}")


def systems():
    """Every system has been trained, and its losses are numbers."""
    table = read("systems.json")
    if table["failed"]:
        fail(f"failed: {[failed['system'] for failed in table['failed']]}")
    for row in table["rows"]:
        # A number that is not finite is written as null.
        if any(loss is None for stage in row["losses"] for loss in stage):
            fail(f"{row['system']}: the losses are {row['losses']}")


def end():
    """The verdict."""
    result = read("result.json")
    phases = result["phases"]
    failures = [name for name, phase in phases.items() if phase["status"] in ("failed", "timed-out")]
    skipped = [name for name, phase in phases.items() if phase["status"] == "skipped"]
    found, tested = optional("doctor.json"), optional("selftest.json")
    cases = (optional("parity.json") or []) + (optional("parity-encoders.json") or [])
    code = 1 if failures else 2 if skipped else 0
    result |= {
        "gpu": text("gpu.csv"),
        "torch": text("torch.txt"),
        "doctor": found,
        "operations": tested and {
            "seed": tested["seed"],
            "checks": len(tested["checks"]),
            "failed": [check for check in tested["checks"] if not check["passed"]],
        },
        "parity": {
            case["case"]: max((tensor["max_rel"] for tensor in case["tensors"]), default=None) for case in cases
        },
        "losses": optional("losses.json"),
        "bench": bench_rows(),
        "scores": optional("scores.json"),
        "failures": failures,
        "skipped": skipped,
        "seconds": sum(phase["seconds"] for phase in phases.values()),
        "verdict": ["passed", "failed", "incomplete"][code],
    }
    write(result)
    print(f"gpu-check: {result['verdict']}: {RESULT}")
    sys.exit(code)


CALLS = {
    call.__name__: call
    for call in [begin, phase, doctor, losses, speed, quality, systems, end]
}

if __name__ == "__main__":
    CALLS[sys.argv[1]](*sys.argv[2:])
