"""Runs the examples of the documents and of the docstrings, with a real model."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import docre_pretrain as docre

REPOSITORY = Path(__file__).parents[2]


def blocks(page):
    """Return line and text of the page's Python, without what is marked `not run`."""
    text = (REPOSITORY / page).read_text()
    found = re.finditer(r"(<!-- not run: [^\n]+ -->\n)?```python\n(.*?)```", text, re.DOTALL)
    return [(text.count("\n", 0, match.start(2)), match[2]) for match in found if not match[1]]


@pytest.mark.parametrize(("page", "least"), [("docs/python.md", 9), ("python/README.md", 1)])
def test_examples_of_the_page_run_in_their_order(work, page, least):
    names = {}
    assert len(blocks(page)) >= least
    for line, text in blocks(page):
        exec(compile("\n" * line + text, page, "exec"), names)
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
