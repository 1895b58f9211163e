"""A trained model, as one process of the program that stays loaded."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Literal, TypeAlias

from ._documents import Document, documents_of, line_of
from ._errors import DocumentError
from ._installation import command
from ._results import Result, Results, failed, result_of
from ._stream import Stream

Errors: TypeAlias = Literal["raise", "return"]
"""What becomes of documents that cannot be read: an exception, or `Result.error`."""

# Documents that are under way at once: enough for the program to put similar ones together.
UNDER_WAY = 1024


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    threshold: float | None = None,
    min_confidence: float | None = None,
    truncate: bool = False,
    options: Sequence[str] = (),
    binary: str | os.PathLike[str] | None = None,
) -> Model:
    """Load a fine-tuned checkpoint or an export, and return when it is ready.

    `device` is `auto` (a GPU if there is one), `cpu` or `cuda`; `threads` the number of threads on
    the CPU. `threshold` takes the place of the decision threshold that was chosen on dev;
    `min_confidence` keeps only facts with at least this calibrated probability. `truncate` cuts
    documents that are too long for the model; otherwise they are errors. `options` are further
    flags of `predict`. `binary` is the program to use in place of the wheel's.

    Raises `InstallationError` if the program or torch is missing, and `ProcessError` if the model
    cannot be loaded.

    >>> import docre_pretrain as docre
    >>> model = docre.load("model", device="cpu")
    >>> results = model.predict({"text": "Ada lives in Leeds.", "entities": []})
    >>> results[0].facts
    ()
    >>> model.close()
    """
    program, environment = command(binary)
    words = [str(program), "predict", "--stream", "--checkpoint", os.fspath(path)]
    words += ["--device", device]
    flags = {"--threads": threads, "--threshold": threshold, "--min-confidence": min_confidence}
    for flag, value in flags.items():
        if value is not None:
            words.append(f"{flag}={value}")
    if truncate:
        words.append("--truncate")
    return Model(Stream([*words, *options], environment))


class Model:
    """A loaded model. All methods may be called from several threads.

    It is a context manager, too; without one, it ends with the last reference to it, or with
    Python.
    """

    def __init__(self, stream: Stream) -> None:
        """Use `load`."""
        self._stream = stream
        self._finalizer = weakref.finalize(self, stream.stop)
        try:
            # An empty line is answered, with an error, as soon as the model is loaded.
            stream.send(b"\n", lambda answer: Result(None)).result()
        except BaseException:
            self._finalizer()
            raise

    def __enter__(self) -> Model:
        """Return the model itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the model; at once if there was an exception."""
        if kind is None:
            self.close()
        else:
            self._finalizer()

    def close(self) -> None:
        """Answer what was submitted, and end the process. A second call does nothing."""
        self._stream.close()
        self._finalizer.detach()

    @property
    def pid(self) -> int:
        """Number of the process that holds the model."""
        return self._stream.pid

    def predict(
        self, documents: Document | Iterable[Document], *, errors: Errors = "raise"
    ) -> Results:
        """Return the results of documents, in their order; of one document, a list of one.

        Raises `DocumentError` for the first document that cannot be read or predicted, or puts it
        into `Result.error` with `errors="return"`; `ProcessError` if the process ends.

        >>> import docre_pretrain as docre
        >>> text = docre.Text("Ada lives in Leeds.", [docre.Span(0, 3, "PER")])
        >>> with docre.load("model", device="cpu") as model:
        ...     results = model.predict([text, {"text": 7}], errors="return")
        >>> results[0].entities
        (Entity(index=0, name='Ada', type='PER', id=None),)
        >>> results[1].error is None
        False
        """
        return Results(self.predict_iter(documents, errors=errors))

    def predict_iter(
        self,
        documents: Document | Iterable[Document],
        *,
        errors: Errors = "raise",
        under_way: int = UNDER_WAY,
    ) -> Iterator[Result]:
        """Yield the results of documents in their order, while later documents are predicted.

        Takes at most `under_way` documents ahead, so that the documents may be a generator of any
        length.
        """
        _check(errors)
        if under_way < 1:
            raise ValueError(f"under_way is {under_way}, but must be at least 1")
        return self._results(documents_of(documents), errors, under_way)

    def _results(
        self, documents: Iterator[Document], errors: Errors, under_way: int
    ) -> Iterator[Result]:
        waiting: deque[Future[Result]] = deque()
        place = 0
        for document in documents:
            waiting.append(self._submit(document))
            while waiting and (len(waiting) >= under_way or waiting[0].done()):
                yield _settled(waiting.popleft().result(), errors, place)
                place += 1
        for future in waiting:
            yield _settled(future.result(), errors, place)
            place += 1

    def submit(self, document: Document, *, errors: Errors = "raise") -> Future[Result]:
        """Return the future of a document's result, without waiting.

        The future raises what `predict` would raise.
        """
        _check(errors)
        return self._submit(document, raising=errors == "raise")

    async def apredict(
        self, documents: Document | Iterable[Document], *, errors: Errors = "raise"
    ) -> Results:
        """Return the results of documents, in their order, without blocking the event loop."""
        import asyncio

        _check(errors)
        results = Results()
        waiting: deque[asyncio.Future[Result]] = deque()
        for document in documents_of(documents):
            waiting.append(asyncio.wrap_future(self._submit(document)))
            if len(waiting) >= UNDER_WAY:
                results.append(_settled(await waiting.popleft(), errors, len(results)))
        while waiting:
            results.append(_settled(await waiting.popleft(), errors, len(results)))
        return results

    def _submit(self, document: Document, raising: bool = False) -> Future[Result]:
        try:
            line = line_of(document)
        except DocumentError as error:
            future: Future[Result] = Future()
            if raising:
                future.set_exception(error)
            else:
                future.set_result(failed(error))
            return future
        title, sentences = line.title, line.sentences
        return self._stream.send(
            line.data, lambda answer: _raised(result_of(answer, title, sentences), raising)
        )


def _check(errors: str) -> None:
    if errors not in ("raise", "return"):
        raise ValueError(f'errors is {errors!r}, but must be "raise" or "return"')


def _raised(result: Result, raising: bool) -> Result:
    if raising and result.error:
        raise result.error
    return result


def _settled(result: Result, errors: Errors, place: int) -> Result:
    """Tell an error its place among the documents, and raise it where that is asked for."""
    if result.error:
        result.error.place = place
        if errors == "raise":
            raise result.error
    return result
