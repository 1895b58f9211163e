"""From what people hold in Python to a line of the stream of `predict`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from ._errors import DocumentError


@dataclass(frozen=True, slots=True)
class Span:
    """A mention of an entity: characters `start` to `end` of a text, the end not included.

    Mentions with one `id` are one entity. Mentions without an `id` are one entity if they have the
    same words and the same label.
    """

    start: int
    end: int
    label: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A running text with its mentions, and a title if it has one.

    A span may also be a tuple (start, end, label, id), the last two optional, or a dict as GLiNER
    and the pipelines of transformers print them.

    >>> text = Text("Ada lives in Leeds.", [Span(0, 3, "PER"), (13, 18, "LOC")])
    """

    text: str
    spans: Iterable[SpanLike]
    title: str | None = None


class SpacyDoc(Protocol):
    """A `Doc` of spaCy."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def ents(self) -> Any:
        """The entities."""


SpanLike: TypeAlias = Span | Sequence[Any] | Mapping[str, Any]
"""A `Span`, or what stands for one."""

Document: TypeAlias = Mapping[str, Any] | Text | tuple[str, Iterable[SpanLike]] | SpacyDoc
"""What can be predicted: a dict in DocRED's or in the `jsonl` form, a `Text`, a tuple of text and
spans, or a `Doc` of spaCy."""


@dataclass(frozen=True, slots=True)
class Line:
    """A document as a line of the stream, and what of it belongs into its result."""

    data: bytes
    title: str | None
    sentences: Sequence[Sequence[str]]


def documents_of(given: Document | Iterable[Document]) -> Iterator[Document]:
    """Return the documents that a caller gave: one, or several."""
    if _is_one(given):
        return iter([given])  # type: ignore[list-item]
    if isinstance(given, (str, bytes)):
        raise TypeError("a text needs its mentions: use Text(text, spans)")
    return iter(given)  # type: ignore[arg-type]


def _is_one(given: object) -> bool:
    pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str)
    return pair or isinstance(given, (Mapping, Text)) or _is_spacy(given)


def _is_spacy(given: object) -> bool:
    return hasattr(given, "ents") and hasattr(given, "text")


def line_of(document: Document) -> Line:
    """Return the line of a document.

    Raises `DocumentError`, with the title, for a document that cannot be one.
    """
    try:
        return _line_of(document)
    except DocumentError as error:
        given = document.get("title") if isinstance(document, Mapping) else None
        title = document.title if isinstance(document, Text) else given
        error.title = title if isinstance(title, str) else None
        raise


def _line_of(document: Document) -> Line:
    if isinstance(document, Mapping):
        form = document
    elif isinstance(document, Text):
        form = _form_of_text(document.text, document.spans, document.title)
    elif isinstance(document, tuple) and _is_one(document):
        form = _form_of_text(document[0], document[1], None)
    elif _is_spacy(document):
        form = _form_of_spacy(document)
    else:
        raise DocumentError(
            f"a {type(document).__name__} is no document",
            "give a dict, a Text(text, spans), or a Doc of spaCy",
        )
    title = form.get("title")
    sentences = form.get("sents") if "vertexSet" in form else form.get("sentences")
    return Line(
        _encoded(form),
        title if isinstance(title, str) else None,
        _words(sentences),
    )


def _words(sentences: object) -> Sequence[Sequence[str]]:
    """Return sentences if they hold words; the program says what is wrong with others."""
    holds_words = isinstance(sentences, Sequence) and all(
        isinstance(words, Sequence) and not isinstance(words, str) for words in sentences
    )
    return sentences if holds_words else ()  # type: ignore[return-value]


def _encoded(form: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(dict(form), ensure_ascii=False, allow_nan=False, default=_plain)
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        raise DocumentError(
            "the text holds half of a surrogate pair, which is no character",
            "decode the source with the right encoding",
        ) from None
    except RecursionError:
        raise DocumentError("the document holds itself") from None
    except (TypeError, ValueError) as error:
        raise DocumentError(f"the document cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """Return numbers and arrays of numpy as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is no JSON")


def _form_of_text(text: str, spans: Iterable[SpanLike], title: str | None) -> dict[str, Any]:
    if not isinstance(text, str):
        raise DocumentError(f"the text is a {type(text).__name__}", "give a str")
    mentions = []
    for number, given in enumerate(spans):
        span = _span_of(given, number, text)
        mention = {"start": span.start, "end": span.end}
        mentions.append((span, text[span.start : span.end], mention))
    form: dict[str, Any] = {"text": text, "entities": _entities(mentions)}
    return form if title is None else {"title": title, **form}


def _span_of(given: SpanLike, number: int, text: str) -> Span:
    """Return a checked span: inside the text, with the words that it says it has."""
    field, words = f"spans[{number}]", None
    if isinstance(given, Mapping):
        words = given.get("text")
        label = given.get("label", given.get("entity_group", given.get("type")))
        values = (given.get("start"), given.get("end"), label, given.get("id"))
    elif isinstance(given, Span):
        values = (given.start, given.end, given.label, given.id)
    elif isinstance(given, Sequence) and not isinstance(given, str) and 2 <= len(given) <= 4:
        values = (*given, None, None)[:4]
    else:
        raise DocumentError("this is no span", "give a Span, a tuple or a dict", field=field)
    start, end, label, identifier = (_plain_number(value) for value in values)
    if not (type(start) is int and type(end) is int):
        raise DocumentError(
            f"start and end are {start!r} and {end!r}", "give characters, from 0", field=field
        )
    if not 0 <= start < end <= len(text):
        raise DocumentError(
            f"characters {start} to {end} are not within the text, which has {len(text)}",
            "count characters of the str from 0; `end` is one past the last",
            field=field,
        )
    if isinstance(words, str) and words != text[start:end]:
        raise DocumentError(
            f"the span says {words!r}, but characters {start} to {end} are {text[start:end]!r}",
            "the offsets count characters, not bytes, of exactly this text",
            field=field,
        )
    for what, value in (("label", label), ("id", identifier)):
        if not (value is None or isinstance(value, str)):
            raise DocumentError(f"the {what} is {value!r}", "give a str or None", field=field)
    return Span(start, end, label or None, identifier or None)


def _plain_number(value: Any) -> Any:
    """Return a number of numpy as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value


def _entities(mentions: Iterable[tuple[Span, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the entities of mentions, each given with its words and its place."""
    entities: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for span, name, mention in mentions:
        by_name = (None, " ".join(name.split()), span.label)
        entity = entities.setdefault((span.id,) if span.id else by_name, {"mentions": []})
        if span.id:
            entity["id"] = span.id
        if span.label:
            entity.setdefault("type", span.label)
            if span.label != entity["type"]:
                mention = {**mention, "type": span.label}
        if mention not in entity["mentions"]:
            entity["mentions"].append(mention)
    return list(entities.values())


def _form_of_spacy(doc: Any) -> dict[str, Any]:
    """Return the form of a `Doc`: with its own words and sentences where it has sentences."""
    try:
        starts = {sentence.start for sentence in doc.sents}
    except (AttributeError, ValueError):  # what spaCy raises where no sentences were set
        spans = [(entity, _span_of_spacy(entity)) for entity in doc.ents]
        characters = [replace(s, start=e.start_char, end=e.end_char) for e, s in spans]
        return _form_of_text(doc.text, characters, None)
    # An entity lies in one sentence: where spaCy ends a sentence within it, the two are joined.
    for entity in doc.ents:
        starts.difference_update(range(entity.start + 1, entity.end))
    sentences: list[list[str]] = []
    places: dict[int, tuple[int, int]] = {}
    begins = True
    for token in doc:
        begins = begins or token.i in starts
        if token.is_space:
            continue
        if begins:
            sentences.append([])
            begins = False
        places[token.i] = (len(sentences) - 1, len(sentences[-1]))
        sentences[-1].append(token.text)
    mentions = []
    for entity in doc.ents:
        words = [places[at] for at in range(entity.start, entity.end) if at in places]
        if words:
            (sentence, first), (_, last) = words[0], words[-1]
            mention = {"sentence": sentence, "start": first, "end": last + 1, "name": entity.text}
            mentions.append((_span_of_spacy(entity), entity.text, mention))
    return {"sentences": sentences, "entities": _entities(mentions)}


def _span_of_spacy(entity: Any) -> Span:
    identifier = getattr(entity, "kb_id_", "") or getattr(entity, "ent_id_", "")
    return Span(entity.start, entity.end, entity.label_ or None, identifier or None)
