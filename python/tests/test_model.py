"""A real model behind the package. `cluster/test-wheel.sh` makes the model and names its folder."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import docre_pretrain as docre


@pytest.fixture(scope="module")
def documents():
    folder = os.environ.get("DOCRE_TEST_FOLDER")
    if folder is None:
        pytest.skip("DOCRE_TEST_FOLDER names no folder with a model")
    return json.loads(Path(folder, "documents.json").read_text())


@pytest.fixture
def model(work):
    with docre.load("model", device="cpu", threads=1) as model:
        yield model


def test_facts_are_those_that_predict_writes_to_a_file(work, documents, tmp_path):
    output = tmp_path / "result.json"
    # A threshold that lets many pairs through, and another that lets few.
    for threshold in (None, -1e9):
        flags = [] if threshold is None else [f"--threshold={threshold}"]
        docre.run(
            *("predict", "--checkpoint", "model", "--input", "documents.json"),
            *("--output", output, "--device", "cpu", *flags),
        )
        expected = json.loads(output.read_text())
        with docre.load("model", device="cpu", threshold=threshold) as model:
            results = model.predict(documents)
        found = [
            {"title": result.title, "h_idx": fact.head.index, "t_idx": fact.tail.index}
            | {"r": fact.relation, "evidence": list(fact.evidence)}
            | {"score": fact.score, "confidence": fact.confidence}
            for result in results
            for fact in result.facts
        ]
        for row in expected:
            row.setdefault("score", None)
            row.setdefault("confidence", None)
        assert found == expected
    assert len(expected) > len(documents)


def test_names_and_sentences_are_those_of_the_documents(model, documents):
    for document, result in zip(documents, model.predict(documents), strict=True):
        assert result.sentences == tuple(map(tuple, document["sents"]))
        names = [mentions[0]["name"] for mentions in document["vertexSet"]]
        types = [mentions[0]["type"] for mentions in document["vertexSet"]]
        assert [(e.name, e.type) for e in result.entities] == list(zip(names, types, strict=True))


def test_five_thousand_documents_at_once(model, documents):
    many = [documents[number % len(documents)] for number in range(5000)]
    few = model.predict(documents)
    futures = [model.submit(document) for document in many]
    results = [future.result(300) for future in futures]
    assert results == [few[number % len(documents)] for number in range(5000)]


def test_texts_with_spans_have_entities_and_sentences(model):
    text = "Ada Byron ran a mill. It was in Leeds."
    spans = [{"start": 0, "end": 9, "label": "PER"}, {"start": 32, "end": 37, "label": "LOC"}]
    result = model.predict((text, spans))[0]
    assert [(e.name, e.type) for e in result.entities] == [("Ada Byron", "PER"), ("Leeds", "LOC")]
    assert [len(words) for words in result.sentences] == [6, 5]


def test_documents_that_cannot_be_read_leave_the_others(model, documents):
    wrong = [{}, {"vertexSet": 7}, {"text": 7}, {**documents[0], "sents": []}]
    mixed = [documents[0], *wrong, documents[1]]
    results = model.predict(mixed, errors="return")
    assert [bool(result.error) for result in results] == [False, *([True] * 4), False]
    assert [results[0], results[5]] == list(model.predict(documents[:2]))
    with pytest.raises(docre.DocumentError, match="document 1"):
        model.predict(mixed)


def test_a_model_that_is_missing_is_named(work):
    with pytest.raises(docre.ProcessError, match="no-such-model") as caught:
        docre.load("no-such-model")
    assert caught.value.code in (64, 65, 74)


def test_a_killed_process_is_named(model, documents):
    futures = [model.submit(document) for document in documents * 200]
    threading.Timer(0.2, os.kill, (model.pid, signal.SIGKILL)).start()
    with pytest.raises(docre.ProcessError, match="SIGKILL"):
        for future in futures:
            future.result(60)
        while True:
            model.predict(documents)


def test_libtorch_is_that_of_this_python(model):
    if "DOCRE_BINARY" in os.environ:
        pytest.skip("a named program finds libtorch by itself")
    maps = Path(f"/proc/{model.pid}/maps").read_text()
    used = {line.split()[-1] for line in maps.splitlines() if "libtorch_cpu.so" in line}
    folder = docre._installation.find_libtorch().resolve()
    assert {Path(path).parent for path in used} == {folder}


def test_spacy_documents_are_predicted(model):
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PER", "pattern": "Ada"}, {"label": "LOC", "pattern": "Leeds"}])
    docs = list(pipeline.pipe(["Ada lives in Leeds. Ada likes it.", "Leeds is large."]))
    results = model.predict(docs)
    assert [[e.name for e in r.entities] for r in results] == [["Ada", "Leeds"], ["Leeds"]]
    assert [len(r.sentences) for r in results] == [2, 1]


def test_memory_of_python_does_not_grow_with_the_documents(work, documents):
    code = (
        "import docre_pretrain as docre, json, resource\n"
        "documents = json.load(open('documents.json'))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "def endless(times):\n"
        "    for _ in range(times): yield from documents\n"
        "with docre.load('model', device='cpu') as model:\n"
        "    for _ in model.predict_iter(endless(150)): pass\n"
        "    early = peak()\n"
        "    for _ in model.predict_iter(endless(300)): pass\n"
        "print(peak() - early)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # In KiB. The lines of the documents alone would be more than twice as large.
    assert int(done.stdout) < 4096, done.stderr
