"""The process behind a model: order, faults and ends, against a stand-in for the program."""

import asyncio
import gc
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import docre_pretrain as docre
from docre_pretrain import DocumentError, ProcessError
from docre_pretrain._stream import without_launchers

FAKE = Path(__file__).with_name("fake_stream.py")


def document(title="a", **more):
    return {"title": title, "vertexSet": [[], []], **more}


def titles(results):
    return [result.facts[0].name for result in results]


def gone(pid):
    """Whether a process has ended, and its parent knows it."""
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            return True
        time.sleep(0.05)
    return False


def test_results_come_in_the_order_of_the_documents(fake):
    names = [f"document {number}" for number in range(3000)]
    with fake("good") as model:
        assert titles(model.predict(document(name) for name in names)) == names
        assert titles(model.predict(document("one"))) == ["one"]
        assert model.predict([]) == []
        assert isinstance(model.predict([]), docre.Results)


def test_a_result_holds_what_the_program_answered(fake):
    model = fake("good")
    result = model.predict(document("t", sents=[["a", "b"]]))[0]
    head, tail = (docre.Entity(number, f"entity {number}", "PER", None) for number in (0, 1))
    fact = docre.Fact(head, tail, "P1", "t", 1.5, None, (0,))
    assert result == docre.Result("t", (fact,), (head, tail), (("a", "b"),), None)
    text = model.predict(docre.Text("Ada", [(0, 3)]))[0]
    assert (text.title, text.sentences, text.facts) == (None, (("Ada",),), ())


@pytest.mark.parametrize("size", [10, 20_000])
def test_five_thousand_documents_at_once_fill_no_pipe_for_ever(fake, size):
    model = fake("reluctant")
    futures = [model.submit(document(str(n), text="x" * size)) for n in range(5000)]
    assert titles(future.result(60) for future in futures) == [str(n) for n in range(5000)]


def test_documents_are_taken_as_results_go(fake):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield document()

    results = fake("good").predict_iter(endless(), under_way=4)
    for number in range(50):
        next(results)
        assert len(taken) <= number + 5
    with pytest.raises(ValueError, match="at least 1"):
        fake("good").predict_iter([], under_way=0)


def test_several_threads_share_a_model(fake):
    model = fake("good")
    names = [f"document {number}" for number in range(2000)]
    with ThreadPoolExecutor(16) as pool:
        each = pool.map(lambda name: model.predict(document(name)), names)
        assert [titles(results)[0] for results in each] == names


def test_an_event_loop_awaits_results(fake):
    model = fake("good")

    async def main():
        several = [model.apredict([document(f"{n}-{m}") for m in range(3)]) for n in range(200)]
        ones = await asyncio.gather(*several)
        broken = await model.apredict([document(), document(bad=1)], errors="return")
        with pytest.raises(DocumentError, match="document 1"):
            await model.apredict([document(), document(bad=1)])
        many = await model.apredict(document(str(n)) for n in range(3000))
        assert titles(many) == [str(n) for n in range(3000)]
        return [title for results in ones for title in titles(results)], broken

    found, broken = asyncio.run(main())
    assert found == [f"{n}-{m}" for n in range(200) for m in range(3)]
    assert broken[0].error is None and broken[1].error.field == "bad"


def test_a_future_that_is_cancelled_stops_no_other(fake):
    model = fake("good")
    futures = [model.submit(document(str(number))) for number in range(100)]
    for future in futures[::2]:
        future.cancel()
    rest = [future.result() for future in futures if not future.cancelled()]
    assert len(rest) >= 50 and titles(model.predict(document("last"))) == ["last"]


def test_an_error_of_a_document_names_its_place(fake):
    model = fake("good")
    documents = [document("a"), document("b", bad=1), docre.Text("x", [(0, 5)], "T"), document("c")]
    with pytest.raises(DocumentError) as caught:
        model.predict(documents)
    error = caught.value
    assert str(error) == 'document 1 ("b"), bad: this is bad; hint: make it good'
    assert (error.place, error.title, error.field, error.hint) == (1, "b", "bad", "make it good")
    assert isinstance(error, ValueError)
    results = model.predict(documents, errors="return")
    assert [bool(result.error) for result in results] == [False, True, True, False]
    assert 'document 2 ("T"), spans[0]: characters 0 to 5' in str(results[2].error)
    assert titles([results[0], results[3]]) == ["a", "c"]
    with pytest.raises(ValueError, match='must be "raise" or "return"'):
        model.predict([], errors="ignore")


def test_a_future_raises_the_error_of_its_document(fake):
    model = fake("good")
    for wrong in (document(bad=1), docre.Text("x", [(0, 5)])):
        with pytest.raises(DocumentError):
            model.submit(wrong).result()
        assert model.submit(wrong, errors="return").result().error
    assert titles(model.predict(document("after"))) == ["after"]


def test_errors_survive_a_way_between_processes():
    for error in (
        DocumentError("m", "h", field="f", title="t", place=3),
        ProcessError("m", "h", code=70, stderr="s"),
        docre.InstallationError("m", "h"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.__dict__) == (str(error), error.__dict__)


def test_a_model_that_cannot_be_loaded_says_what_the_program_said(fake):
    with pytest.raises(ProcessError) as caught:
        fake("missing")
    error = caught.value
    assert str(error) == "missing: no such checkpoint; hint: name a checkpoint"
    assert error.code == 65 and "warning: this is about to end" in error.stderr


FAULTS = {
    "dies:3": (70, "it is all over; hint: begin anew"),
    "killed:3": (-9, "the program was ended by SIGKILL"),
    "garbage:3": (-9, "no answer: b'{"),
    "other:3": (-9, "the answer to line 5 has another form"),
    "skips:3": (-9, "answered line 6 in place of line 5"),
    "leaves:3": (0, "the program ended with exit code 0"),
    "shuts:3": (-9, "the program was ended by SIGKILL"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_process_reaches_all_who_wait(fake, fault, monkeypatch):
    monkeypatch.setattr("docre_pretrain._stream.SECONDS_TO_END", 0.3)
    model = fake(fault)
    futures = [model.submit(document(str(number))) for number in range(2000)]
    assert titles(future.result(30) for future in futures[:3]) == ["0", "1", "2"]
    code, message = FAULTS[fault]
    for future in futures[3:]:
        with pytest.raises(ProcessError) as caught:
            future.result(30)
        assert fault == "other:3" or message in str(caught.value)
    with pytest.raises(ProcessError) as caught:
        model.predict(document())
    assert message in str(caught.value) and caught.value.code == code
    assert gone(model.pid)
    model.close()


def test_closing_answers_what_was_submitted(fake):
    model = fake("good")
    futures = [model.submit(document(str(number))) for number in range(2000)]
    model.close()
    assert all(future.done() for future in futures)
    assert titles(future.result() for future in futures) == [str(number) for number in range(2000)]
    assert gone(model.pid)
    model.close()
    with pytest.raises(ProcessError, match="the model is closed; hint: load it again"):
        model.predict(document())


def test_a_process_that_does_not_end_is_ended(fake, monkeypatch):
    monkeypatch.setattr("docre_pretrain._stream.SECONDS_TO_END", 0.3)
    model = fake("clings")
    model.predict(document())
    model.close()
    assert gone(model.pid)


def test_an_exception_within_a_context_ends_the_process_at_once(fake):
    with pytest.raises(KeyError), fake("stalls") as model:
        future = model.submit(document())
        raise KeyError
    assert gone(model.pid)
    with pytest.raises(ProcessError, match="closed"):
        future.result(5)


def test_a_model_ends_with_its_last_reference():
    model = docre.load("stalls", binary=FAKE)
    pid, future = model.pid, model.submit(document())
    del model
    gc.collect()
    assert gone(pid)
    with pytest.raises(ProcessError, match="closed"):
        future.result(5)


@pytest.mark.parametrize("way", ["", "raise KeyError", "import os; os.kill(os.getpid(), 9)"])
def test_python_ends_without_waiting_and_leaves_no_process(way):
    code = (
        f"import docre_pretrain as docre; model = docre.load('good', binary={str(FAKE)!r})\n"
        "print(model.pid, flush=True); model.submit({'vertexSet': []})\n"
    )
    done = subprocess.run([sys.executable, "-c", code + way], capture_output=True, timeout=20)
    assert gone(int(done.stdout)), done.stderr.decode()
    assert b"KeyError" in done.stderr or not done.stderr, done.stderr.decode()


def test_a_fork_says_that_the_model_is_its_parents(fake):
    model = fake("good")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            model.predict(document())
        except ProcessError as error:
            os.write(writer, str(error).encode())
        model._finalizer()
        model.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert b"loaded by the parent" in os.read(reader, 1000)
    assert titles(model.predict(document("still"))) == ["still"]
    os.close(reader)
    os.close(writer)


def test_options_become_flags(fake):
    model = fake(
        "good",
        device="cuda",
        threads=2,
        threshold=-1.5,
        min_confidence=0.9,
        truncate=True,
        options=["--without-fusion"],
    )
    said = json.loads(model.predict(document(arguments=1))[0].facts[0].name)
    assert said[2:] == [
        *("--checkpoint", "good", "--device", "cuda", "--threads=2", "--threshold=-1.5"),
        *("--min-confidence=0.9", "--truncate", "--without-fusion"),
    ]


def test_warnings_of_the_program_are_logged(caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(ProcessError):
        docre.load("missing", binary=FAKE)
    assert ("docre_pretrain", logging.WARNING, "this is about to end") in caplog.record_tuples


def test_a_model_within_a_rank_is_no_rank():
    ranks = "RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR TORCHELASTIC_RUN_ID DOCRE_LAUNCHED DOCRE_WORLD"
    ranks = [*ranks.split(), "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"]
    others = ["RANKING", "DOCRE_WORLDS", "MY_RANK", "CUDA_VISIBLE_DEVICES"]
    assert list(without_launchers(dict.fromkeys(ranks + others, "1"))) == others


def test_no_thread_is_left_behind(fake):
    before = threading.active_count()
    for _ in range(5):
        with fake("good") as model:
            model.predict(document())
    assert threading.active_count() == before
