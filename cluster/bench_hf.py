"""Tokens a second of a BERT in transformers, as a careful user would run it: SDPA, batches without
padding, autocast for bfloat16. Rounds of this program stand between rounds of transformers, so that a
busy machine slows both.

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
config = BertConfig(
    vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
    intermediate_size=1024, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)
config._attn_implementation = "sdpa"
model = BertModel(config, add_pooling_layer=False)
batch = torch.randint(0, VOCABULARY, ((TOKENS + length - 1) // length, length))


def seconds(train, half):
    """The time of one pass over the batch."""
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half), torch.set_grad_enabled(train):
        states = model(input_ids=batch).last_hidden_state
    if train:
        model.zero_grad(set_to_none=True)
        states.float().sum().backward()
    return time.perf_counter() - start


def ours(precision):
    """Tokens a second of this program, forward and in training."""
    with tempfile.TemporaryDirectory() as work:
        table = pathlib.Path(work, "table.json")
        line = [binary, "bench", "encoders", "--encoder", "mini", "--threads", "1", "--device", "cpu",
                "--precision", precision, "--length", str(length), "--json", str(table)]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        row = json.loads(table.read_text())["rows"][0]
        return row["forward"], row["training"]


print(f"BERT, 4 layers of 256, one thread, documents of {length} pieces, tokens a second")
print(f"{'':<8}{'transformers':>26}{'this program':>26}{'ratio':>18}")
for precision, half in [("fp32", False), ("bf16", True)]:
    theirs, own = ([], []), ([], [])
    for _ in range(ROUNDS):
        for index, train in enumerate([False, True]):
            model.train(train)
            times = [seconds(train, half) for _ in range(4)][1:]
            theirs[index].append(batch.numel() / statistics.median(times))
        for index, rate in enumerate(ours(precision)):
            own[index].append(rate)
    theirs = [statistics.median(rates) for rates in theirs]
    own = [statistics.median(rates) for rates in own]
    ratios = [a / b for a, b in zip(own, theirs)]
    print(f"{precision:<8}{theirs[0]:>13.0f}{theirs[1]:>13.0f}{own[0]:>13.0f}{own[1]:>13.0f}"
          f"{ratios[0]:>9.2f}{ratios[1]:>9.2f}")
