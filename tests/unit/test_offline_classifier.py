"""The classifier is repeatable, measured on texts that it has not seen, and its probabilities can be believed."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.agents.offline import Concepts, Example, TextClassifier, measure, read_examples
from tightship.agents.offline.calibration import (
    brier,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability,
    softmax,
    wilson,
)
from tightship.core.errors import LoadError

FRUIT = ["apple", "pear", "plum", "cherry", "grape", "melon"]
METAL = ["iron", "copper", "zinc", "silver", "tin", "lead"]


def examples() -> list[Example]:
    chance = random.Random(3)
    made = {
        f"a {chance.choice(words)} and the {chance.choice(words)} {n}x": label
        for n in range(40)
        for label, words in (("fruit", FRUIT), ("metal", METAL))
    }
    return [Example(text, label) for text, label in made.items()]


def test_it_learns_what_can_be_learned_and_gives_probabilities() -> None:
    classifier = TextClassifier.train(examples())
    found = classifier.predict("the plum and a pear")
    assert found.label == "fruit"
    assert found.confidence == found.ranking[0][1] > 0.9
    assert sum(share for _, share in found.ranking) == pytest.approx(1.0)
    assert classifier.report().accuracy > 0.95


def test_labels_without_meaning_are_not_learned() -> None:
    """The held-out figures must be able to be bad: labels dealt by chance give the accuracy of chance, and say so."""
    chance = random.Random(5)
    words = [f"w{n}" for n in range(300)]
    noise = [Example(" ".join(chance.sample(words, 4)), chance.choice("ab")) for _ in range(200)]
    report = TextClassifier.train(noise).report()
    assert 0.35 < report.accuracy < 0.65
    assert report.ece < 0.15
    assert all(row.confidence < 0.75 for row in report.bins if row.count > 20)


def test_training_is_repeatable_whatever_the_order_of_the_examples() -> None:
    one, other = TextClassifier.train(examples()), TextClassifier.train(examples())
    assert one.report() == other.report()
    assert one.predict("iron plum") == other.predict("iron plum")


def test_a_text_unlike_all_others_is_not_familiar() -> None:
    classifier = TextClassifier.train(examples())
    assert classifier.predict("a cherry and the grape").familiar
    strange = classifier.predict("quantum physics of lighthouses")
    assert not strange.familiar
    assert strange.similarity < classifier.floor


def test_groups_of_words_carry_over_to_words_never_seen() -> None:
    concepts = Concepts({"fruit": [*FRUIT, "kiwi"], "metal": [*METAL, "nickel"]})
    classifier = TextClassifier.train(examples(), concepts=concepts)
    assert classifier.predict("kiwi").label == "fruit"
    assert classifier.predict("nickel").label == "metal"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([Example(f"t{n}", "a") for n in range(9)], "two labels"),
        ([Example(f"t{n}", "a" if n else "b") for n in range(9)], "fewer than 5 examples of: b"),
        ([Example(f"t{n % 9}", "ab"[n % 2]) for n in range(20)], "stands twice"),
    ],
)
def test_examples_that_cannot_be_learned_from_are_refused(rows: list[Example], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TextClassifier.train(rows)


# Calibration


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8), st.floats(0.05, 20))
def test_softmax_is_a_distribution_that_keeps_the_order(scores: list[float], temperature: float) -> None:
    shares = softmax(scores, temperature)
    assert sum(shares) == pytest.approx(1.0)
    assert max(shares) == shares[scores.index(max(scores))]


def test_the_fitted_temperature_is_the_best_one() -> None:
    """Scores that were made too sure by a factor of 3 are brought back to about what they were."""
    chance = random.Random(7)
    scores, truth = [], []
    for _ in range(1500):
        row = [chance.gauss(0, 1.5) for _ in range(3)]
        draw, total = chance.random(), 0.0
        for index, share in enumerate(softmax(row)):
            total += share
            if draw < total or index == 2:
                truth.append(index)
                break
        scores.append([3 * value for value in row])
    fitted = fit_temperature(scores, truth)
    assert fitted == pytest.approx(3.0, rel=0.15)
    assert all(
        log_loss(scores, truth, fitted) <= log_loss(scores, truth, other) + 1e-9 for other in (1.0, 2.0, 5.0, 10.0)
    )


def test_calibration_error_and_brier_by_hand() -> None:
    bins = reliability([0.95, 0.95, 0.55, 0.55], [True, True, True, False])
    assert [(row.count, row.accuracy) for row in bins] == [(2, 0.5), (2, 1.0)]
    assert expected_calibration_error(bins) == pytest.approx(0.05)
    assert brier([[1.0, 0.0], [0.5, 0.5]], [0, 1]) == pytest.approx(0.25)
    assert brier([[0.0, 1.0]], [0]) == 2.0


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 0) == (0.0, 1.0)


def test_figures_by_class_by_hand() -> None:
    report = measure(["a", "b"], [0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    a, b = report.classes
    assert (a.precision, a.recall, b.precision, b.recall) == (1.0, pytest.approx(2 / 3), 0.5, 1.0)
    assert report.accuracy == 0.75
    assert report.confusions == (("a", "b", 1),)
    assert math.isclose(report.macro_f1, (a.f1 + b.f1) / 2)


# Files and the command


def test_a_line_that_is_no_labelled_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for bad in (b"{", b"[]", b'{"text": "x"}', b'{"text": "x", "topic": 3}', b'{"text": "", "topic": "a"}'):
        path.write_bytes(b'{"text": "fine", "topic": "a"}\n\n' + bad + b"\n")
        with pytest.raises(LoadError) as caught:
            read_examples(path, "topic")
        assert caught.value.line == 3


def test_the_command_prints_the_figures(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"text": e.text, "topic": e.label}) + b"\n" for e in examples()))
    command = [sys.executable, "-m", "tightship.agents.offline", str(path)]
    plain = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "accuracy" in plain.stdout and "ECE" in plain.stdout and "fruit" in plain.stdout
    exact = orjson.loads(subprocess.run([*command, "--json"], capture_output=True, check=True).stdout)
    assert exact["topic"]["accuracy"] == TextClassifier.train(examples()).report().accuracy
    wrong = subprocess.run([*command, "--label", "nothing"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "t.jsonl:1" in wrong.stderr
