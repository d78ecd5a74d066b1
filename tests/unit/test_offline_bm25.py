"""Search finds the passage that is about the question, and says which words made it so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.agents.offline import BM25Index, Concepts, Passage, read_passages
from tightship.core.errors import LoadError

PASSAGES = [
    Passage("KB-1", "Return window", "Goods may be returned within 30 days.", frozenset({"return"})),
    Passage("KB-2", "Return postage", "Returning goods costs nothing.", frozenset({"return"})),
    Passage("KB-3", "Forgotten password", "Choose the link on the page.", frozenset({"account"})),
    Passage("KB-9", "Escalation", "Returns above the limit go to a lead.", frozenset({"internal"})),
]


def ids(index: BM25Index, query: str, **more: object) -> list[str]:
    return [hit.passage.id for hit in index.search(query, **more)]  # type: ignore[arg-type]


def test_the_score_is_robertsons_formula() -> None:
    """Two passages of one word each, k1 = 1.2, b = 0: idf * tf * (k1 + 1) / (k1 + tf)."""
    index = BM25Index([Passage("A-1", "", "apple apple"), Passage("A-2", "", "pear")], b=0.0)
    (hit,) = index.search("apples")
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    assert hit.score == pytest.approx(idf * 2 * 2.2 / (1.2 + 2))
    assert hit.matched == ("apple",)


def test_a_heading_counts_more_than_the_body() -> None:
    index = BM25Index([Passage("A-1", "other", "password here"), Passage("A-2", "password", "other words")])
    assert ids(index, "password") == ["A-2", "A-1"]


def test_passages_for_the_staff_are_not_found_when_barred() -> None:
    index = BM25Index(PASSAGES)
    assert "KB-9" in ids(index, "returns above the limit")
    assert "KB-9" not in ids(index, "returns above the limit", without=("internal",))


def test_another_word_of_the_same_group_finds_the_passage() -> None:
    concepts = Concepts({"end": ["cancel*", "terminate", '"give up"']})
    passages = [Passage("A-1", "Membership", "How to terminate it."), Passage("A-2", "Membership", "What it costs.")]
    assert ids(BM25Index(passages, concepts=concepts), "cancelling my membership")[0] == "A-1"
    assert not BM25Index(passages).search("cancelling")


@given(st.text(max_size=200), st.integers(0, 10))
def test_search_is_ordered_bounded_and_repeatable(query: str, limit: int) -> None:
    index = BM25Index(PASSAGES)
    hits = index.search(query, limit)
    assert len(hits) <= limit
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.score > 0 for hit in hits)
    assert hits == index.search(query, limit)


def test_two_passages_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        BM25Index([PASSAGES[0], PASSAGES[0]])


def test_a_folder_of_passages_is_read_with_headings_and_tags(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# Title\n\nread by people\n\n## KB-1 First {one, two}\nText.\nMore.\n\n## KB-2 Second\nOther.\n"
    )
    first, second = read_passages(tmp_path)
    assert (first.id, first.heading, first.text, first.tags) == (
        "KB-1",
        "First",
        "Text.\nMore.",
        frozenset({"one", "two"}),
    )
    assert (second.text, second.tags, second.source) == ("Other.", frozenset(), "a.md")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("## No id here\ntext", 1, "needs an id"),
        ("## KB-1 Empty\n\n## KB-2 Full\ntext", 1, "is empty"),
        ("## KB-1 One\ntext\n## KB-1 Two\ntext", 3, "stands in a.md too"),
        ("just text", None, "no passages"),
    ],
)
def test_a_fault_in_a_knowledge_file_is_named_with_its_line(
    tmp_path: Path, text: str, line: int | None, said: str
) -> None:
    (tmp_path / "a.md").write_text(text)
    with pytest.raises(LoadError, match=said) as caught:
        read_passages(tmp_path)
    assert caught.value.line == line
    assert caught.value.fix
