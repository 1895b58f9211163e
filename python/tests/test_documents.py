"""What becomes of documents on their way to the program."""

import json
from types import SimpleNamespace

import pytest

from docre_pretrain import DocumentError, Span, Text
from docre_pretrain._documents import documents_of, line_of

TEXT = "Ada lives in Leeds. Ada likes it."
ADA, LEEDS, AGAIN = Span(0, 3, "PER"), Span(13, 18, "LOC"), Span(20, 23, "PER")


def form(document):
    return json.loads(line_of(document).data)


def entities(*spans, text=TEXT):
    return form(Text(text, spans))["entities"]


def mentions(*places):
    return [{"start": start, "end": end} for start, end in places]


def test_mentions_of_one_name_and_label_are_one_entity():
    assert entities(ADA, LEEDS, AGAIN) == [
        {"type": "PER", "mentions": mentions((0, 3), (20, 23))},
        {"type": "LOC", "mentions": mentions((13, 18))},
    ]
    assert len(entities(ADA, Span(20, 23, "ORG"))) == 2
    assert len(entities(Span(0, 4, "X"), Span(6, 11, "X"), text="A  B, A \n B")) == 1
    assert entities(ADA, ADA) == [{"type": "PER", "mentions": mentions((0, 3))}]


def test_mentions_of_one_id_are_one_entity_whatever_their_names():
    spans = [Span(0, 3, "PER", "Q1"), Span(13, 18, "LOC", "Q1"), AGAIN]
    one, other = entities(*spans)
    assert one["id"] == "Q1" and one["type"] == "PER"
    assert one["mentions"] == [{"start": 0, "end": 3}, {"start": 13, "end": 18, "type": "LOC"}]
    assert other == {"type": "PER", "mentions": mentions((20, 23))}


@pytest.mark.parametrize(
    "span",
    [
        Span(0, 3, "PER"),
        (0, 3, "PER"),
        [0, 3, "PER", None],
        {"start": 0, "end": 3, "text": "Ada", "label": "PER", "score": 0.9},
        {"start": 0, "end": 3, "word": "ada", "entity_group": "PER", "score": 0.9},
    ],
)
def test_spans_may_be_written_as_other_programs_print_them(span):
    assert entities(span) == entities(ADA)
    assert form((TEXT, [span])) == form(Text(TEXT, [ADA]))


@pytest.mark.parametrize(
    ("span", "problem"),
    [
        ((0, 99), "not within the text"),
        ((-3, 3), "not within the text"),
        ((3, 3), "not within the text"),
        ((5, 3), "not within the text"),
        (("0", "3"), "start and end are"),
        ((0.0, 3.0), "start and end are"),
        ((False, True), "start and end are"),
        ({"begin": 0}, "start and end are"),
        ({"start": 1, "end": 4, "text": "Ada"}, "says 'Ada', but characters 1 to 4 are 'da '"),
        ((0, 3, 7), "the label is 7"),
        ((0, 3, "PER", 7), "the id is 7"),
        ("03", "this is no span"),
        ((0,), "this is no span"),
        (None, "this is no span"),
    ],
)
def test_a_wrong_span_is_named_and_not_guessed_at(span, problem):
    with pytest.raises(DocumentError, match=problem) as caught:
        entities(ADA, span)
    assert caught.value.field == "spans[1]"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (7, "a int is no document"),
        (None, "a NoneType is no document"),
        ("text", "a str is no document"),
        (Text(None, []), "the text is a NoneType"),
        ({"text": float("nan")}, "cannot be written as JSON"),
        ({"text": object()}, "a object is no JSON"),
        ({"text": "\ud800"}, "half of a surrogate pair"),
    ],
)
def test_what_is_no_document_is_an_error(document, problem):
    with pytest.raises(DocumentError, match=problem):
        line_of(document)


def test_a_document_that_holds_itself_is_an_error():
    document = {"text": "a"}
    document["entities"] = document
    with pytest.raises(DocumentError):
        line_of(document)


def test_dicts_are_sent_as_they_are_on_one_line():
    docred = {"title": "a", "sents": [["A\nB", "Ä"]], "vertexSet": []}
    line = line_of(docred)
    assert json.loads(line.data) == docred and line.data.count(b"\n") == 1
    assert (line.title, line.sentences) == ("a", [["A\nB", "Ä"]])
    assert line_of({"sentences": "no words"}).sentences == ()
    assert line_of({"sents": ["no words"], "vertexSet": []}).sentences == ()


def test_numbers_and_arrays_of_numpy_are_taken():
    numpy = pytest.importorskip("numpy")
    assert form({"sents": numpy.array([["a"]]), "n": numpy.int64(3)}) == {"sents": [["a"]], "n": 3}
    assert entities((numpy.int64(0), numpy.int64(3), "PER")) == entities(ADA)


def test_one_document_is_told_from_several():
    one = {"text": "", "entities": []}
    for single in (one, Text("", []), ("", []), SimpleNamespace(text="", ents=())):
        assert list(documents_of(single)) == [single]
        assert list(documents_of([single, single])) == [single, single]
        assert list(documents_of(iter([single]))) == [single]
    with pytest.raises(TypeError, match="needs its mentions"):
        documents_of("Ada lives in Leeds.")


def spacy_doc(text, with_sentences=True):
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {"label": "PER", "pattern": "Ada Byron", "id": "Q1"},
            {"label": "PER", "pattern": "Ada", "id": "Q1"},
            {"label": "LOC", "pattern": "St. Ives"},
        ]
    )
    if with_sentences:
        pipeline.add_pipe("sentencizer")
    return pipeline(text)


def test_a_doc_of_spacy_keeps_its_words_sentences_and_ids():
    found = form(spacy_doc("Ada Byron  ran.\n\nAda left."))
    assert found["sentences"] == [["Ada", "Byron", "ran", "."], ["Ada", "left", "."]]
    assert found["entities"] == [
        {
            "id": "Q1",
            "type": "PER",
            "mentions": [
                {"sentence": 0, "start": 0, "end": 2, "name": "Ada Byron"},
                {"sentence": 1, "start": 0, "end": 1, "name": "Ada"},
            ],
        }
    ]


def test_sentences_of_spacy_that_part_an_entity_are_joined():
    doc = spacy_doc("Ada ran. She saw St. Ives. Good.")
    starts = [token.i for token in doc if token.text == "Ives"]
    doc[starts[0]].is_sent_start = True
    found = form(doc)
    assert [len(words) for words in found["sentences"]] == [3, 5, 2]
    assert found["entities"][1]["mentions"][0]["name"] == "St. Ives"


def test_a_doc_of_spacy_without_sentences_is_a_text_with_spans():
    found = form(spacy_doc("Ada Byron ran. Ada left.", with_sentences=False))
    assert found["text"] == "Ada Byron ran. Ada left."
    assert found["entities"][0]["mentions"] == mentions((0, 9), (15, 18))
