"""Opens shards, a table of documents and a label ledger in Hugging Face datasets, and checks that
columns are typed and values equal those of the JSON files.

usage: test_datasets.py DOCUMENTS.json SHARDS DOCUMENTS.parquet LABELLED.json LABELS.parquet
"""
import json
import os
import pathlib
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import List, Value, disable_progress_bars, load_dataset

disable_progress_bars()

text, number, small = Value("string"), Value("uint32"), Value("uint16")
mention = {"name": text, "sentence": number, "start": number, "end": number}
candidates = List({"head": number, "tail": number, "excluded": Value("bool")})
shard_columns = {
    "title": text,
    "words": List(text),
    "pieces": List(number),
    "word_starts": List(number),
    "sentence_starts": List(number),
    "entities": List({"entity_type": text, "mentions": List({**mention, "own_type": text})}),
    "facts": List({"head": number, "tail": number, "relation": number, "evidence": List(number)}),
    "labelled": Value("bool"),
    "candidates": candidates,
    "kept": List({"head": number, "tail": number, "score": Value("float32")}),
    "taught": List(
        {
            "head": number,
            "tail": number,
            "relations": List({"relation": small, "probability": small, "predicted": Value("bool"), "deviation": small}),
            "evidence": List(Value("uint8")),
            "tokens": List(small),
            "weights": List(small),
        }
    ),
    "teacher_logits": List(small),
}
table_columns = {
    "title": text,
    "sentences": List(List(text)),
    "entities": List({"id": text, "mentions": List({**mention, "type": text})}),
    "facts": List({"head": number, "tail": number, "relation": text, "evidence": List(number)}),
    "candidates": candidates,
}


def from_shards(row, relations):
    """Title, names of mentions with their words, and facts, as `from_json` gives them."""
    starts = row["sentence_starts"]
    names = [[(m["name"], row["words"][m["start"] : m["end"]], m["sentence"]) for m in e["mentions"]] for e in row["entities"]]
    facts = [(f["head"], f["tail"], relations[f["relation"]], f["evidence"]) for f in row["facts"]]
    return row["title"], [row["words"][a:b] for a, b in zip(starts, starts[1:])], names, facts


def from_table(row):
    names = [[(m["name"], row["sentences"][m["sentence"]][m["start"] : m["end"]], m["sentence"]) for m in e["mentions"]] for e in row["entities"]]
    return row["title"], row["sentences"], names, [(f["head"], f["tail"], f["relation"], f["evidence"]) for f in row["facts"]]


def from_json(row):
    words = lambda m: row["sents"][m["sent_id"]][m["pos"][0] : m["pos"][1]]
    names = [[(m["name"], words(m), m["sent_id"]) for m in entity] for entity in row["vertexSet"]]
    return row["title"], row["sents"], names, [(f["h"], f["t"], f["r"], f["evidence"]) for f in row["labels"]]


documents = [from_json(row) for row in json.load(open(sys.argv[1])) if row["vertexSet"]]
shards = pathlib.Path(sys.argv[2])
manifest = json.loads((shards / "manifest.json").read_text())
relations = [relation["id"] for relation in manifest["relations"]]
files = [str(shards / entry["file"]) for entry in manifest["shards"]]
failed = 0
with tempfile.TemporaryDirectory() as cache:
    for what, paths, columns, read in [
        ("shards", files, shard_columns, lambda row: from_shards(row, relations)),
        ("a table", [sys.argv[3]], table_columns, from_table),
    ]:
        data = load_dataset("parquet", data_files=paths, split="train", cache_dir=cache)
        problems = [name for name, kind in columns.items() if data.features.get(name) != kind]
        problems += ["columns"] * (list(data.features) != list(columns))
        problems += ["documents"] * ([read(row) for row in data] != documents)
        print(f"{data.num_rows} documents of {what} in datasets: {', '.join(problems) or 'passed'}")
        failed += bool(problems)
    ledger = load_dataset("parquet", data_files=[sys.argv[5]], split="train", cache_dir=cache)
    told = [(row["title"], row["head"], row["tail"], row["relation"]) for row in ledger]
    labels = [(row["title"], f["h"], f["t"], f["r"]) for row in json.load(open(sys.argv[4])) for f in row["labels"]]
    kinds = [ledger.features[name] for name in ("rank", "score", "kept", "reason")]
    right = told == labels and kinds == [number, Value("float32"), Value("bool"), text]
    print(f"{ledger.num_rows} labels of a ledger in datasets: {'passed' if right else 'other labels or types'}")
    failed += not right
sys.exit(failed > 0)
