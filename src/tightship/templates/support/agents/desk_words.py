"""What a customer's own words name and ask for, found by rules; nothing in them is ever carried out."""

from __future__ import annotations

import re
from typing import Final

_ORDER: Final = re.compile(
    r"\bo[- ]?(\d{4,6})\b|\border\s*(?:no\.?|number|nr\.?|#)?\s*[:#]?\s*(\d{4,6})\b", re.IGNORECASE
)
_PERSONAL: Final = re.compile(
    r"\b(?:my|mine|our|ours|me|we|i'm|i've|i'd|"
    r"i (?:ordered|bought|paid|received|returned|sent|cancelled|got|want|need|would|request|have))\b",
    re.IGNORECASE,
)
_LEGAL: Final = re.compile(
    r"\b(?:lawyers?|attorneys?|solicitors?|sue|suing|court|legal (?:action|steps)|police)\b", re.IGNORECASE
)
_DANGER: Final = re.compile(
    r"\b(?:electric shock|shocked me|caught fire|on fire|smoke|sparks?|sparked|burn(?:t|ed|ing)|injur(?:y|ed)|"
    r"bleed(?:s|ing)|cut (?:my|her|his)|swallowed|hospital)\b",
    re.IGNORECASE,
)
_TAKEOVER: Final = re.compile(
    r"\b(?:hacked|hacker|taken over|stolen my (?:account|card)|"
    r"(?:someone|somebody|stranger)\b.{0,60}\b(?:my account|my card|logged in)|"
    r"did not (?:make|place|order) (?:it|this|that|them))\b",
    re.IGNORECASE | re.DOTALL,
)
_ALARMS: Final = {"legal": _LEGAL, "danger": _DANGER, "takeover": _TAKEOVER}
_ANGER: Final = re.compile(
    r"\b(?:angry|furious|unacceptable|disgrace\w*|disgust\w*|worst|ridiculous|outrag\w+|scandal\w*|fed up|shame|"
    r"appalled|terrible|incompetent|never again|disappoint\w*)\b|!{2,}",
    re.IGNORECASE,
)
_STOCK: Final = re.compile(
    r"\b(?:in stock|on stock|out of stock|restock\w*|available|availability|sold out|left)\b", re.IGNORECASE
)


def order_ids(text: str) -> list[str]:
    """The order numbers that a text names, each once, as `O-2001`."""
    found = (first or second for first, second in _ORDER.findall(text))
    return list(dict.fromkeys(f"O-{digits}" for digits in found))


def alarms(text: str) -> list[str]:
    """Why a person has to see the case whatever else is true (KB-80): `legal`, `danger`, `takeover`."""
    return [name for name, pattern in _ALARMS.items() if pattern.search(text)]


def is_angry(text: str) -> bool:
    """Whether the words or the capitals are those of somebody who is angry."""
    letters = [letter for letter in text if letter.isalpha()]
    shouted = len(letters) > 20 and sum(letter.isupper() for letter in letters) > 0.6 * len(letters)
    return shouted or _ANGER.search(text) is not None


def is_general(text: str) -> bool:
    """Whether it is a question about how things work rather than about the writer's own case."""
    return "?" in text and _PERSONAL.search(text) is None


def asks_for_stock(text: str) -> bool:
    """Whether it asks if something can be had."""
    return _STOCK.search(text) is not None
