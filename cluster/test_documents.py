"""Opens a table of documents in pyarrow, and checks that columns are typed and documents equal those
of the JSON file.

usage: test_documents.py DOCUMENTS.json DOCUMENTS.parquet
"""
import json
import sys

import pyarrow
import pyarrow.parquet

documents = json.load(open(sys.argv[1]))
table = pyarrow.parquet.ParquetFile(sys.argv[2], page_checksum_verification=True).read()
number, text = pyarrow.uint32(), pyarrow.string()
mention = pyarrow.struct([("name", text), ("sentence", number), ("start", number), ("end", number), ("type", text)])
expected = {
    "title": text,
    "sentences": pyarrow.list_(pyarrow.list_(text)),
    "entities": pyarrow.list_(pyarrow.struct([("id", text), ("mentions", pyarrow.list_(mention))])),
    "facts": pyarrow.list_(pyarrow.struct([("head", number), ("tail", number), ("relation", text), ("evidence", pyarrow.list_(number))])),
    "candidates": pyarrow.list_(pyarrow.struct([("head", number), ("tail", number), ("excluded", pyarrow.bool_())])),
}


def plain(kind):
    """A type without the names and nullability of its list elements."""
    if pyarrow.types.is_list(kind):
        return ["list", plain(kind.value_type)]
    if pyarrow.types.is_struct(kind):
        return [(kind.field(at).name, plain(kind.field(at).type)) for at in range(kind.num_fields)]
    return str(kind)


def as_docred(row):
    mention = lambda m: {"name": m["name"], "sent_id": m["sentence"], "pos": [m["start"], m["end"]], "type": m["type"]}
    document = {"title": row["title"], "sents": row["sentences"], "vertexSet": [[mention(m) for m in e["mentions"]] for e in row["entities"]]}
    if row["facts"] is not None:
        document["labels"] = [{"h": f["head"], "t": f["tail"], "r": f["relation"], "evidence": f["evidence"]} for f in row["facts"]]
    return document


problems = [name for name, kind in expected.items() if plain(table.schema.field(name).type) != plain(kind)]
problems += ["columns"] * (table.column_names != list(expected))
problems += ["documents"] * ([as_docred(row) for row in table.to_pylist()] != documents)
print(f"{table.num_rows} documents in a table: {', '.join(problems) or 'passed'}")
sys.exit(bool(problems))
