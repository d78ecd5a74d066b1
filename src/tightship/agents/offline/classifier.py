"""A text classifier that a few hundred labelled sentences are enough for, and whose probabilities mean something."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from tightship.agents.offline._logistic import Vector, Weights, fit
from tightship.agents.offline.calibration import fit_temperature, softmax
from tightship.agents.offline.concepts import Concepts
from tightship.agents.offline.report import Report, measure
from tightship.agents.offline.text import stem, words
from tightship.core.errors import LoadError

_DIGIT: Final = re.compile(r"\d")
_MAX_LINE: Final = 10_000


@dataclass(frozen=True, slots=True)
class Example:
    """A text and the label that a person gave it."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a text most probably is.

    Attributes:
        label: the most probable label.
        confidence: its calibrated probability, 0 to 1.
        ranking: all labels with their probabilities, most probable first.
        similarity: the cosine to the most similar training text, 0 to 1.
        familiar: whether that similarity is as high as training texts have among themselves (all but 1 in 100).
    """

    label: str
    confidence: float
    ranking: tuple[tuple[str, float], ...]
    similarity: float
    familiar: bool


class TextClassifier:
    """Multinomial logistic regression over words and concepts, calibrated on held-out folds by temperature scaling.

    Training on a thousand sentences takes about a second; the same examples give the same classifier.
    Build it with `TextClassifier.train`.
    """

    def __init__(
        self,
        labels: Sequence[str],
        space: _Space,
        weights: Weights,
        temperature: float,
        neighbours: _Neighbours,
        floor: float,
        report: Report,
    ) -> None:
        self.labels = tuple(labels)
        self.temperature = temperature
        self.floor = floor
        self._space, self._weights, self._neighbours, self._report = space, weights, neighbours, report

    @classmethod
    def train(
        cls,
        examples: Sequence[Example],
        *,
        concepts: Concepts | None = None,
        folds: int = 5,
        out_of_scope: str | None = None,
    ) -> TextClassifier:
        """Learn from examples.

        Args:
            examples: at least `folds` of each label, no text twice.
            concepts: word groups that serve as features beside the words themselves.
            folds: how many parts the examples are cut into, to measure and calibrate on texts that were held out.
            out_of_scope: the label of texts that belong nowhere; they do not set the standard of what is familiar.

        Raises:
            ValueError: fewer than two labels, too few examples of one, or a text that stands twice.
        """
        labels = _labels(examples, folds)
        index = {label: position for position, label in enumerate(labels)}
        truth = [index[example.label] for example in examples]
        bags = [_bag(example.text, concepts) for example in examples]
        place = _folds(examples, folds)
        held_out: list[list[float]] = [[] for _ in examples]
        nearest = [0.0] * len(examples)
        for fold in range(folds):
            known = [position for position, other in enumerate(place) if other != fold]
            space, vectors, weights = _fit(
                [bags[position] for position in known], [truth[i] for i in known], len(labels)
            )
            neighbours = _Neighbours(vectors)
            for position in (position for position, other in enumerate(place) if other == fold):
                vector = space.vector(bags[position])
                held_out[position] = weights.scores(vector)
                nearest[position] = neighbours.nearest(vector)
        probabilities = _cross_calibrated(held_out, truth, place, folds)
        report = measure(labels, truth, probabilities, folds)
        inside = [value for value, example in zip(nearest, examples, strict=True) if example.label != out_of_scope]
        space, vectors, weights = _fit(bags, truth, len(labels))
        space.concepts = concepts
        floor = sorted(inside)[len(inside) // 100]
        return cls(labels, space, weights, fit_temperature(held_out, truth), _Neighbours(vectors), floor, report)

    def predict(self, text: str) -> Prediction:
        """Classify a text."""
        vector = self._space.vector(_bag(text, self._space.concepts))
        probabilities = softmax(self._weights.scores(vector), self.temperature)
        ranking = sorted(zip(self.labels, probabilities, strict=True), key=lambda pair: (-pair[1], pair[0]))
        similarity = self._neighbours.nearest(vector)
        label, confidence = ranking[0]
        return Prediction(label, confidence, tuple(ranking), similarity, bool(vector) and similarity >= self.floor)

    def report(self) -> Report:
        """How well it did on held-out folds, each judged by a classifier and a temperature that never saw it."""
        return self._report


class _Space:
    """Turns bags of features into vectors of length 1, weighted by rarity (tf-idf)."""

    def __init__(self, bags: Sequence[Mapping[str, int]]) -> None:
        seen: Counter[str] = Counter()
        for bag in bags:
            seen.update(bag.keys())
        self.index = {feature: position for position, feature in enumerate(seen)}
        self.idf = [math.log((1 + len(bags)) / (1 + count)) + 1 for count in seen.values()]
        self.concepts: Concepts | None = None

    def vector(self, bag: Mapping[str, int]) -> list[tuple[int, float]]:
        index, idf = self.index, self.idf
        raw = [
            (position, (1 + math.log(count)) * idf[position])
            for feature, count in bag.items()
            if (position := index.get(feature)) is not None
        ]
        length = math.sqrt(sum(value * value for _, value in raw)) or 1.0
        return [(position, value / length) for position, value in raw]


class _Neighbours:
    """The training vectors by component, to find the most similar one."""

    def __init__(self, vectors: Sequence[Vector]) -> None:
        self._postings: dict[int, list[tuple[int, float]]] = {}
        for number, vector in enumerate(vectors):
            for index, value in vector:
                self._postings.setdefault(index, []).append((number, value))

    def nearest(self, vector: Vector) -> float:
        products: dict[int, float] = {}
        for index, value in vector:
            for number, other in self._postings.get(index, ()):
                products[number] = products.get(number, 0.0) + value * other
        return min(1.0, max(products.values(), default=0.0))


def _bag(text: str, concepts: Concepts | None) -> Counter[str]:
    bag: Counter[str] = Counter(stem(word) for word in words(text) if not _DIGIT.search(word))
    if concepts is not None:
        found = concepts.find(text)
        bag.update(f"@{name}" for name in found)
        bag[f"@{min(len(set(found)), 3)}"] += 1
    return bag


def _fit(bags: Sequence[Mapping[str, int]], truth: Sequence[int], classes: int) -> tuple[_Space, list[Vector], Weights]:
    space = _Space(bags)
    vectors: list[Vector] = [space.vector(bag) for bag in bags]
    return space, vectors, fit(vectors, truth, components=len(space.index), classes=classes)


def _labels(examples: Sequence[Example], folds: int) -> list[str]:
    counts = Counter(example.label for example in examples)
    if folds < 2 or len(counts) < 2:
        raise ValueError("a classifier needs two labels and two folds at least")
    scarce = sorted(label for label, count in counts.items() if count < folds)
    if scarce:
        raise ValueError(f"there are fewer than {folds} examples of: {', '.join(scarce)}")
    texts = Counter(example.text for example in examples)
    doubled = next((text for text, count in texts.items() if count > 1), None)
    if doubled is not None:
        raise ValueError(f"this text stands twice: {doubled[:80]!r}")
    return sorted(counts)


def _folds(examples: Sequence[Example], folds: int) -> list[int]:
    """A fold for each example: each label is dealt evenly, in an order given by the texts' digests alone."""
    order = sorted(
        range(len(examples)),
        key=lambda i: (examples[i].label, hashlib.sha256(examples[i].text.encode()).digest()),
    )
    place = [0] * len(examples)
    for turn, position in enumerate(order):
        place[position] = turn % folds
    return place


def _cross_calibrated(
    scores: Sequence[Sequence[float]], truth: Sequence[int], place: Sequence[int], folds: int
) -> list[list[float]]:
    temperatures = [
        fit_temperature(
            [row for row, other in zip(scores, place, strict=True) if other != fold],
            [index for index, other in zip(truth, place, strict=True) if other != fold],
        )
        for fold in range(folds)
    ]
    return [softmax(row, temperatures[fold]) for row, fold in zip(scores, place, strict=True)]


def read_examples(path: Path, label: str, *, text: str = "text") -> list[Example]:
    """Labelled sentences from a file of JSON lines.

    Args:
        path: the file.
        label: the field that holds the label.
        text: the field that holds the sentence.

    Raises:
        LoadError: a line is not such an object.
    """
    return [Example(row[text], row[label]) for row in _rows(path, (text, label))]


def _rows(path: Path, fields: Iterable[str]) -> Iterable[Mapping[str, str]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row(path, number, line, fields)


def _row(path: Path, number: int, line: bytes, fields: Iterable[str]) -> Mapping[str, str]:
    fix = f"write one object a line with the text fields {', '.join(fields)}"
    try:
        row: Any = orjson.loads(line[:_MAX_LINE])
    except orjson.JSONDecodeError as error:
        raise LoadError("this line is not JSON", file=str(path), line=number, fix=fix) from error
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) and row[name] for name in fields):
        raise LoadError("this line is not a labelled text", file=str(path), line=number, fix=fix)
    return row
