"""Relations between the entities of whole documents, found by models of docre-pretrain.

>>> import docre_pretrain as docre
>>> text = docre.Text("Ada lives in Leeds.", [docre.Span(0, 3, "PER"), docre.Span(13, 18, "LOC")])
>>> with docre.load("model", device="cpu") as model:
...     results = model.predict(text)
>>> [entity.name for entity in results[0].entities]
['Ada', 'Leeds']

A model is one process of the program docre-pretrain, which computes with the libtorch of this
Python's torch. This package never imports torch.
"""

from ._documents import Document, Span, SpanLike, Text
from ._errors import DocreError, DocumentError, InstallationError, ProcessError
from ._installation import binary
from ._model import Model, load
from ._results import Entity, Fact, Result, Results, to_dicts, to_pandas
from ._run import run

__all__ = [
    "DocreError",
    "Document",
    "DocumentError",
    "Entity",
    "Fact",
    "InstallationError",
    "Model",
    "ProcessError",
    "Result",
    "Results",
    "Span",
    "SpanLike",
    "Text",
    "__version__",
    "binary",
    "load",
    "run",
    "to_dicts",
    "to_pandas",
]


def __getattr__(name: str) -> str:
    """Look the version up only when it is asked for: that takes longer than all the rest."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("docre-pretrain")
        except PackageNotFoundError:
            return "0+source"  # the package is used without being installed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
