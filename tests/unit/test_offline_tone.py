"""Each rule of tone and compliance has an id, finds what it is for, and leaves a decent reply alone."""

from __future__ import annotations

import re

import pytest

from tightship.agents.offline import card_number, check_tone, strangers

DECENT = (
    "Hello Ada,\n\nOrder O-2001 was shipped. [ORDER-O-2001] Please open your account.\n\nKind regards, the support team"
)


def rules(text: str, **more: object) -> set[str]:
    return {remark.rule for remark in check_tone(text, acronyms={"ORDER"}, **more)}  # type: ignore[arg-type]


def test_a_decent_reply_has_no_remarks() -> None:
    assert rules(DECENT) == set()


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("We guarantee that it arrives tomorrow.", "C-PROMISE"),
        ("Delivery is guaranteed in two days.", "C-PROMISE"),
        ("We are fully liable for it.", "C-LIABILITY"),
        ("Take this goodwill voucher.", "C-COMPENSATION"),
        ("Please send us your password.", "C-SECRET"),
        ("Tell me your full card number.", "C-SECRET"),
        ("The credit look-up was bad.", "C-INTERNAL"),
        ("This was your own mistake.", "T-BLAME"),
        ("You should have read the page.", "T-BLAME"),
        ("Calm down.", "T-RUDE"),
        ("There is nothing we can do.", "T-DISMISSIVE"),
        ("Dear {name}, it is fine.", "T-PLACEHOLDER"),
        ("This is URGENTLY needed.", "T-SHOUTING"),
        ("Great news!! It is here.", "T-EXCLAMATION"),
        ("Your card 4111 1111 1111 1111 is known.", "C-CARD"),
    ],
)
def test_a_bad_sentence_is_found_by_its_rule(sentence: str, rule: str) -> None:
    assert rules(DECENT.replace("Please open your account.", sentence)) == {rule}


def test_greeting_closing_apology_and_length() -> None:
    assert rules("Order O-2001 was shipped.") == {"T-GREETING", "T-CLOSING"}
    assert rules(DECENT, apology=True) == {"T-APOLOGY"}
    assert rules(DECENT.replace("Please", "We are sorry. Please"), apology=True) == set()
    assert rules(DECENT, longest=5) == {"T-LENGTH"}


def test_the_words_that_broke_a_rule_are_named() -> None:
    (remark,) = check_tone(DECENT.replace("shipped", "guaranteed"), acronyms={"ORDER"})
    assert remark.found == "guaranteed"


def test_card_numbers_are_told_by_their_check_digit() -> None:
    assert card_number("pay 4111-1111-1111-1111 now") == "4111111111111111"
    assert card_number("pay 4111-1111-1111-1112 now") is None
    assert card_number("order 1234567890123") is None
    assert card_number("0000 0000 0000 0000") is None


def test_identifiers_of_others_are_found() -> None:
    orders = re.compile(r"\bO-\d+\b")
    assert strangers("O-1 and O-2 and O-2", ["o-1"], orders) == ["O-2"]
