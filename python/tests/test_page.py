"""Runs the examples of the documents and of the docstrings, with a real model."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import docre_pretrain as docre

PAGE = Path(__file__).parents[2] / "docs/python.md"


def blocks():
    """Return line and text of the page's Python, without what is marked `not run`."""
    text = PAGE.read_text()
    found = re.finditer(r"(<!-- not run: [^\n]+ -->\n)?```python\n(.*?)```", text, re.DOTALL)
    return [(text.count("\n", 0, match.start(2)), match[2]) for match in found if not match[1]]


def test_examples_of_the_page_run_in_their_order(work):
    names = {}
    assert len(blocks()) >= 9
    for line, text in blocks():
        exec(compile("\n" * line + text, str(PAGE), "exec"), names)
    names["model"].close()


# Importing `__main__` is harmless, and it holds no example.
@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(docre.__path__)])
def test_examples_of_docstrings_run(work, module):
    loaded = importlib.import_module(f"docre_pretrain.{module}")
    result = doctest.testmod(loaded, extraglobs={"docre": docre})
    assert result.failed == 0


def test_the_example_of_the_package_runs(work):
    result = doctest.testmod(docre)
    assert result.failed == 0 and result.attempted >= 4
