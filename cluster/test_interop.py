"""Opens every checkpoint of a run in transformers, and compares hidden states and word pieces with
those of this program: on a few odd words, on generated documents of 30, 300, 512 and 700 pieces (cut
where the encoder has fewer positions), and on the longest documents of the reference data where
DOCRE_SHARED names it.

usage: test_interop.py BINARY RUN
"""
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer

binary, run = sys.argv[1], pathlib.Path(sys.argv[2])
LENGTHS, LONGEST, TOLERANCE = [30, 300, 512, 700], 3, 1e-5


def generated(count, seed):
    """Words of generated sentences."""
    draw = random.Random(seed)
    names = ["Ada Holm", "the Orvel Company", "New Tarrow", "Bram O'Neil", "Lake Sundby", "the mayor", "Zoë Å. Lund"]
    verbs = ["visited", "had founded", "was re-elected by", "sold", "did not recognise", "wrote about", "left"]
    ends = ["in 1987", "for $ 3.5 million", "after the war", "without further ado", "( see below )", "on 3 May", ""]
    words = []
    while len(words) < count:
        sentence = [draw.choice(names), draw.choice(verbs), draw.choice(names), draw.choice(ends), "."]
        words += " ".join(sentence).split()
    return words


def reference():
    """The longest documents of each file in DocRED's form."""
    for file in sorted(pathlib.Path(os.environ.get("DOCRE_SHARED", "/nowhere")).glob("data/*/*.json")):
        documents = json.loads(file.read_text())
        if not isinstance(documents, list) or not documents or "sents" not in documents[0]:
            continue
        documents = [list(itertools.chain(*document["sents"])) for document in documents]
        yield from sorted(documents, key=len)[-LONGEST:]


texts = [{"words": generated(length, length), "pieces": length} for length in LENGTHS]
texts += [{"words": words, "pieces": LENGTHS[-1]} for words in reference()]
passed = failed = 0
for folder in sorted(path.parent for path in run.glob("checkpoints/*/step-*/MANIFEST.json")):
    with tempfile.TemporaryDirectory() as work:
        pathlib.Path(work, "texts.json").write_text(json.dumps(texts))
        line = [binary, "probe", "--checkpoint", folder, "--texts", f"{work}/texts.json", "--output", work]
        subprocess.run(line, check=True)
        probe = load_file(pathlib.Path(work, "probe.safetensors"))
        words = json.loads(pathlib.Path(work, "words.json").read_text())
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    difference, lengths = 0.0, []
    for start, end in itertools.pairwise(probe["offsets"]):
        with torch.no_grad():
            ids = torch.from_numpy(probe["ids"][start:end])[None]
            states = model(input_ids=ids).last_hidden_state[0].numpy()
        difference = numpy.maximum(difference, numpy.abs(states - probe["states"][start:end]).max())
        lengths.append(int(end - start))
    # A word of the text that looks like a special piece is plain text here, so transformers is told the same.
    pieces = [piece for word in words["words"]
              for piece in tokenizer.encode(word, add_special_tokens=False, split_special_tokens=True)]
    problems = [name for name, bad in [
        ("missing weights", loading["missing_keys"]),
        ("unexpected weights", loading["unexpected_keys"]),
        ("hidden states", not difference <= TOLERANCE),
        ("word pieces", pieces != words["pieces"]),
        ("vocabulary", model.config.vocab_size < len(tokenizer)),
        ("lengths", len(lengths) != 1 + len(texts) or lengths[1] != LENGTHS[0]),
    ] if bad]
    note = ", PROBLEM: " + ", ".join(problems) if problems else ""
    print(f"{folder.parent.name}/{folder.name}: hidden states of {len(lengths)} documents of up to "
          f"{max(lengths)} pieces within {difference:.1e}{note}")
    passed, failed = passed + (not problems), failed + bool(problems)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0 or passed == 0)
