"""What a model says of documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._errors import DocumentError


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity of a document."""

    index: int
    """Its place among the document's entities, from 0."""
    name: str
    """The name of its first mention."""
    type: str | None = None
    id: str | None = None
    """Its identifier in a knowledge base, if the document gave one."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A relation between two entities that the document states."""

    head: Entity
    tail: Entity
    relation: str
    """The identifier of the relation, such as `P17`."""
    name: str
    """The name of the relation, such as `country`; the identifier if the model knows no name."""
    score: float | None = None
    """The system's own score: comparable within a model, no probability."""
    confidence: float | None = None
    """The calibrated probability, if the model is calibrated."""
    evidence: tuple[int, ...] = ()
    """Sentences that support the fact, from 0, if the system tells them."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a model says of one document: facts, or an error."""

    title: str | None
    """The title that the document gave."""
    facts: tuple[Fact, ...] = ()
    entities: tuple[Entity, ...] = ()
    sentences: tuple[tuple[str, ...], ...] = ()
    """The words of each sentence, which `Fact.evidence` counts."""
    error: DocumentError | None = None
    """Why there are no facts, where `errors="return"` was asked for."""


COLUMNS = (
    "document",
    "title",
    "head",
    "head_name",
    "head_type",
    "head_id",
    "relation",
    "name",
    "tail",
    "tail_name",
    "tail_type",
    "tail_id",
    "score",
    "confidence",
    "evidence",
)


def to_dicts(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return one flat dict for each fact, with the place of its document among the results.

    >>> ada, leeds = Entity(0, "Ada", "PER"), Entity(1, "Leeds", "LOC")
    >>> fact = Fact(ada, leeds, "P551", "residence", score=2.5)
    >>> rows = to_dicts([Result("no facts"), Result("Ada's Mill", (fact,))])
    >>> rows[0]["document"], rows[0]["head_name"], rows[0]["name"], rows[0]["tail_name"]
    (1, 'Ada', 'residence', 'Leeds')
    """
    rows = []
    for place, result in enumerate(results):
        for fact in result.facts:
            head, tail = fact.head, fact.tail
            values = (
                *(place, result.title),
                *(head.index, head.name, head.type, head.id),
                *(fact.relation, fact.name),
                *(tail.index, tail.name, tail.type, tail.id),
                *(fact.score, fact.confidence, list(fact.evidence)),
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def to_pandas(results: Iterable[Result]) -> Any:
    """Return a `pandas.DataFrame` with one row for each fact.

    `document` is the place of the document among the results, from 0; `head` and `tail` are places
    among its entities.

    >>> ada, leeds = Entity(0, "Ada", "PER"), Entity(1, "Leeds", "LOC")
    >>> fact = Fact(ada, leeds, "P551", "residence", score=2.5)
    >>> to_pandas([Result("Ada's Mill", (fact,))])[["head_name", "name", "tail_name"]]
      head_name       name tail_name
    0       Ada  residence     Leeds
    """
    import pandas

    return pandas.DataFrame(to_dicts(results), columns=list(COLUMNS))


class Results(list[Result]):
    """A list of results, in the order of the documents."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat dict for each fact; see `docre_pretrain.to_dicts`."""
        return to_dicts(self)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row for each fact."""
        return to_pandas(self)


def result_of(
    answer: Mapping[str, Any], title: str | None, sentences: Sequence[Sequence[str]]
) -> Result:
    """Return the result that an answer of the program means.

    `title` and `sentences` are those of the document, as far as it gave them.
    """
    if "error" in answer:
        error = answer["error"]
        return failed(
            DocumentError(
                error["message"], error.get("hint"), field=error.get("field"), title=title
            )
        )
    entities = tuple(
        Entity(index, entity["name"], entity.get("type"), entity.get("id"))
        for index, entity in enumerate(answer["entities"])
    )
    facts = tuple(
        Fact(
            entities[fact["h_idx"]],
            entities[fact["t_idx"]],
            fact["r"],
            fact.get("relation", fact["r"]),
            fact.get("score"),
            fact.get("confidence"),
            tuple(fact.get("evidence", ())),
        )
        for fact in answer["facts"]
    )
    told = tuple(map(tuple, answer.get("sentences", sentences)))
    return Result(title, facts, entities, told)


def failed(error: DocumentError) -> Result:
    """Return the result of a document that could not be predicted."""
    return Result(error.title, error=error)
