"""A claim passes only when what it cites says it: numbers exactly, words mostly, and denial not turned round."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.agents.offline import Claim, exact_facts, split_claims, verify, verify_all

SOURCES = {
    "KB-1": "Goods may be returned within 30 days of delivery. Opened packaging is no reason to refuse a return.",
    "KB-2": "Shipping costs 4.90 below an order value of 50.00.",
    "KB-3": "Gift cards are not refunded once they were sent.",
    "ORDER-O-2001": "Order O-2001 was delivered 5 days ago. The total of order O-2001 is 39.90 USD.",
}


def judged(text: str, *cited: str) -> bool:
    return verify(Claim(text, cited), SOURCES).supported


def test_what_the_source_says_is_supported() -> None:
    assert judged("Goods may be returned within 30 days of delivery.", "KB-1")
    assert judged("You may return goods within thirty days of delivery.", "KB-1")
    assert judged("Your order O-2001 was delivered 5 days ago.", "ORDER-O-2001")
    assert judged("The total of order O-2001 is 39.9 USD.", "ORDER-O-2001")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("Goods may be returned within 60 days of delivery.", ("60",)),
        ("Order O-2002 was delivered 5 days ago.", ("o-2002",)),
        ("The total of order O-2001 is 93.90 USD.", ("93.9",)),
        ("Order O-2001 was delivered 5 days ago, on 2026-01-01.", ("2026-01-01",)),
    ],
)
def test_one_wrong_number_date_or_identifier_is_enough(text: str, missing: tuple[str, ...]) -> None:
    verdict = verify(Claim(text, ("KB-1", "ORDER-O-2001")), SOURCES)
    assert not verdict.supported
    assert verdict.missing == missing


def test_neither_a_denial_nor_its_absence_can_be_made_up() -> None:
    assert judged("Gift cards are not refunded once sent.", "KB-3")
    assert not judged("Goods may not be returned within 30 days of delivery.", "ORDER-O-2001")
    assert not judged("Gift cards are refunded once sent.", "KB-3")
    assert not judged("Opened packaging is a reason to refuse a return.", "KB-1")
    assert not judged("Shipping never costs 4.90 below an order value of 50.00.", "KB-2")


def test_words_that_stand_far_apart_do_not_add_up() -> None:
    """The words must stand in one sentence of the source, or in two that follow each other."""
    sources = {"KB-1": "Refunds take days. " + "Nothing else matters here. " * 5 + "Vouchers expire quickly."}
    assert not verify(Claim("Vouchers expire, refunds take", ("KB-1",)), sources).supported


def test_without_a_known_source_nothing_is_supported() -> None:
    assert verify(Claim("Goods may be returned."), SOURCES).reason == "it cites no source"
    verdict = verify(Claim("Goods may be returned.", ("KB-99",)), SOURCES)
    assert (verdict.supported, verdict.missing) == (False, ("KB-99",))


def test_a_reply_is_split_into_claims_with_their_citations() -> None:
    reply = "Hello Ada,\n\nGoods go back. [KB-1] It costs 4.90 [KB-2, KB-1]. Trust me.\n\nKind regards"
    claims = split_claims(reply, courtesies=("hello ada", "Kind regards"))
    assert claims == [
        Claim("Goods go back.", ("KB-1",)),
        Claim("It costs 4.90.", ("KB-2", "KB-1")),
        Claim("Trust me.", ()),
    ]


def test_a_courtesy_that_cites_is_a_claim() -> None:
    """Otherwise anything could be smuggled in beside a phrase that nobody looks at."""
    assert split_claims("Kind regards [KB-1]", courtesies=("Kind regards",)) == [Claim("Kind regards", ("KB-1",))]


def test_every_sentence_of_a_reply_is_judged() -> None:
    verdicts = verify_all(
        "Goods may be returned within 30 days of delivery. [KB-1] We give you 900 euros. [KB-1]", SOURCES
    )
    assert [verdict.supported for verdict in verdicts] == [True, False]


@given(st.sampled_from(sorted(SOURCES)), st.integers(51, 10_000))
def test_no_number_gets_through_that_its_source_does_not_have(source: str, number: int) -> None:
    text = SOURCES[source].split(". ")[0]
    assert judged(f"{text}.", source)
    assert not judged(f"{text} {number}.", source)


def test_numbers_are_compared_by_value() -> None:
    assert exact_facts("39.90 and 1,200 and 1 200") == exact_facts("39.9 and 1200") == frozenset({"39.9", "1200"})
    assert exact_facts("[KB-12] O-2001 on 2026-02-03, two days") == frozenset({"o-2001", "2026-02-03", "2"})
