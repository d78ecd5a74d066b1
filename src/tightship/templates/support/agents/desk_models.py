"""What the desk has learned and knows: the triage classifiers and the knowledge base, built once per process."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tightship.agents.offline import BM25Index, Concepts, Hit, TextClassifier, read_examples, read_passages

_building = threading.Lock()


@dataclass(frozen=True, slots=True)
class TriageModels:
    """One classifier for the topic, one for the urgency."""

    topic: TextClassifier
    urgency: TextClassifier


@cache
def _triage(folder: Path) -> TriageModels:
    concepts = Concepts.read(folder / "concepts.txt")
    file = folder / "triage.jsonl"
    return TriageModels(
        TextClassifier.train(read_examples(file, "topic"), concepts=concepts, out_of_scope="out_of_scope"),
        TextClassifier.train(read_examples(file, "urgency"), concepts=concepts, folds=3),
    )


@cache
def _knowledge(folder: Path, training: Path) -> BM25Index:
    return BM25Index(read_passages(folder), concepts=Concepts.read(training / "concepts.txt"))


async def triage_models(folder: Path) -> TriageModels:
    """The classifiers, trained on `triage.jsonl` of the folder at first use (some two seconds, in a thread)."""
    return await asyncio.to_thread(_locked_triage, folder.resolve())


def _locked_triage(folder: Path) -> TriageModels:
    with _building:  # the first caller trains, the others wait for it instead of training again
        return _triage(folder)


def knowledge_index(folder: Path, training: Path) -> BM25Index:
    """The passages of the folder, indexed at first use; the groups of words are those of the classifiers."""
    return _knowledge(folder.resolve(), training.resolve())


def search(index: BM25Index, query: str, topic: str, limit: int = 4) -> list[Hit]:
    """The passages of a topic that fit a query best; passages for the staff alone are never among them."""
    hits = index.search(query, limit=len(index), without=("internal",))
    return [hit for hit in hits if topic in hit.passage.tags][:limit]
