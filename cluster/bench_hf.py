"""Tokens a second of a BERT in transformers, as a careful user would run it: SDPA, batches without
padding, autocast for bfloat16. Training is measured with dropout 0.1, as BERT's configuration has it,
and without. Rounds of this program stand between rounds of transformers, so that a busy machine slows
both.

usage: bench_hf.py BINARY [LENGTH] (`make bench-hf` brings the environment)
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from transformers import BertConfig, BertModel

binary, length = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 512
TOKENS, VOCABULARY, ROUNDS = 4096, 8192, 3
torch.set_num_threads(1)
torch.manual_seed(7)
TRAININGS = [0.1, 0.0]  # dropout


def bert(dropout):
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=1024, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )
    config._attn_implementation = "sdpa"
    return BertModel(config, add_pooling_layer=False)


models = {dropout: bert(dropout) for dropout in TRAININGS}
batch = torch.randint(0, VOCABULARY, ((TOKENS + length - 1) // length, length))


def theirs(train, half, dropout):
    """Tokens a second of transformers."""
    model = models[dropout].train(train)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half), torch.set_grad_enabled(train):
            states = model(input_ids=batch).last_hidden_state
        if train:
            model.zero_grad(set_to_none=True)
            states.float().sum().backward()
        times.append(time.perf_counter() - start)
    return batch.numel() / statistics.median(times[1:])


def ours(precision, dropout):
    """Tokens a second of this program, forward and in training."""
    with tempfile.TemporaryDirectory() as work:
        table = pathlib.Path(work, "table.json")
        line = [binary, "bench", "encoders", "--encoder", "mini", "--threads", "1", "--device", "cpu",
                "--precision", precision, "--length", str(length), "--dropout", str(dropout),
                "--json", str(table)]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        row = json.loads(table.read_text())["rows"][0]
        return row["forward"], row["training"]


print(f"BERT, 4 layers of 256, one thread, documents of {length} pieces, tokens a second")
print(f"{'':<28}{'transformers':>14}{'this program':>14}{'ratio':>8}")
for precision, half in [("fp32", False), ("bf16", True)]:
    rows = {"forward": ([], [])} | {f"training, dropout {p}": ([], []) for p in TRAININGS}
    for _ in range(ROUNDS):
        rows["forward"][0].append(theirs(False, half, 0.0))
        for dropout in TRAININGS:
            name = f"training, dropout {dropout}"
            rows[name][0].append(theirs(True, half, dropout))
            forward, training = ours(precision, dropout)
            rows["forward"][1].append(forward)
            rows[name][1].append(training)
    for name, sides in rows.items():
        other, own = (statistics.median(rates) for rates in sides)
        print(f"{precision + ' ' + name:<28}{other:>14.0f}{own:>14.0f}{own / other:>8.2f}")
