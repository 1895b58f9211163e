"""Opens every checkpoint of a run in transformers, and compares hidden states and word pieces with
those of this program.

usage: test_interop.py BINARY RUN
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

binary, run = sys.argv[1], pathlib.Path(sys.argv[2])
passed = failed = 0
for folder in sorted(path.parent for path in run.glob("checkpoints/*/step-*/MANIFEST.json")):
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([binary, "probe", "--checkpoint", folder, "--output", work], check=True)
        probe = load_file(pathlib.Path(work, "probe.safetensors"))
        words = json.loads(pathlib.Path(work, "words.json").read_text())
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = model(input_ids=torch.from_numpy(probe["ids"])[None]).last_hidden_state[0].numpy()
    difference = float(numpy.abs(states - probe["states"]).max())
    # A word of the text that looks like a special piece is plain text here, so transformers is told the same.
    pieces = [piece for word in words["words"]
              for piece in tokenizer.encode(word, add_special_tokens=False, split_special_tokens=True)]
    problems = [name for name, bad in [
        ("missing weights", loading["missing_keys"]),
        ("unexpected weights", loading["unexpected_keys"]),
        ("hidden states", not difference <= 1e-5),
        ("word pieces", pieces != words["pieces"]),
        ("vocabulary", model.config.vocab_size < len(tokenizer)),
    ] if bad]
    note = ", PROBLEM: " + ", ".join(problems) if problems else ""
    print(f"{folder.parent.name}/{folder.name}: hidden states within {difference:.1e}{note}")
    passed, failed = passed + (not problems), failed + bool(problems)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed == 0)
