"""What tests share: a stand-in for the program, and a real model where there is one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import docre_pretrain as docre

FAKE = Path(__file__).with_name("fake_stream.py")

# A folder with `model`, a small fine-tuned checkpoint, and `documents.json`, documents for it.
WORK = os.environ.get("DOCRE_TEST_FOLDER")


@pytest.fixture
def fake() -> Iterator[Callable[..., docre.Model]]:
    """Load the stand-in, with a fault in place of a checkpoint."""
    loaded = []

    def load(fault: str, **options: object) -> docre.Model:
        model = docre.load(fault, binary=FAKE, **options)  # type: ignore[arg-type]
        loaded.append(model)
        return model

    yield load
    for model in loaded:
        model._finalizer()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to the folder of the real model."""
    if WORK is None:
        pytest.skip("DOCRE_TEST_FOLDER names no folder with a model")
    monkeypatch.chdir(WORK)
    return Path(WORK)
