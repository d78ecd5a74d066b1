"""Agents that work without a language model: retrieval, statistics and rules, in plain Python.

Search over passages (`bm25`), a calibrated text classifier (`classifier`, `concepts`, `calibration`, `report`), claims
against their sources (`claims`), tone and compliance (`tone`), own words and quoted ones (`mail`). Each does one thing
that can be measured and explained; none of them pretends to understand. `python -m tightship.agents.offline FILE`
prints how well a classifier trained on FILE does on held-out texts.
"""

from __future__ import annotations

from tightship.agents.offline.bm25 import BM25Index, Hit, Passage, read_passages
from tightship.agents.offline.claims import Claim, Verdict, exact_facts, split_claims, verify, verify_all
from tightship.agents.offline.classifier import Example, Prediction, TextClassifier, read_examples
from tightship.agents.offline.concepts import Concepts
from tightship.agents.offline.mail import Message, take_apart
from tightship.agents.offline.report import ClassFigures, Report, measure
from tightship.agents.offline.tone import PHRASE_RULES, PhraseRule, Remark, card_number, check_tone, strangers

__all__ = [
    "PHRASE_RULES",
    "BM25Index",
    "Claim",
    "ClassFigures",
    "Concepts",
    "Example",
    "Hit",
    "Message",
    "Passage",
    "PhraseRule",
    "Prediction",
    "Remark",
    "Report",
    "TextClassifier",
    "Verdict",
    "card_number",
    "check_tone",
    "exact_facts",
    "measure",
    "read_examples",
    "read_passages",
    "split_claims",
    "strangers",
    "take_apart",
    "verify",
    "verify_all",
]
