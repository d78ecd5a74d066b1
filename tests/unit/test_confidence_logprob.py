"""A confidence from the probabilities of a model's tokens: read from the provider, calibrated, never made up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))

from model_desk import ANSWER, OUTPUT, Desk, effects, of_kind
from tightship.core import kinds
from tightship.core.errors import Unavailable
from tightship.core.ports import FREE
from tightship.models import Message, ModelReply
from tightship.models._probabilities import token_probability
from tightship.workflow.models import Confidence

STATED = {"source": "logprob", "of": "topic"}
SHAPE = {**OUTPUT, "confidence": "float"}


def sure(probability: float | None, answer: Mapping[str, Any] = ANSWER) -> ModelReply:
    """An answer whose topic has this probability; None: the provider does not say."""
    meta = {} if probability is None else {"probability": probability, "tokens": 2}
    return ModelReply(Message.assistant(""), FREE, "stop", "practice-small-2026", output=dict(answer), meta=meta)


def desk(folder: Path, *script: Any, **more: Any) -> Desk:
    return Desk(folder, list(script), confidence={**STATED, **more.pop("stated", {})}, output=SHAPE, tools=[], **more)


async def test_the_confidence_is_the_probability_of_the_decided_field_and_recorded(tmp_path: Path) -> None:
    made = desk(tmp_path, sure(0.87))
    run = await made.run()
    assert run.output == {**ANSWER, "confidence": 0.87}
    [told] = [entry.body["value"] for entry in of_kind(run, kinds.DECIDED) if entry.key.endswith("/confidence")]
    assert (told["source"], told["raw"]) == ("logprob", 0.87) and told["uncalibrated"]
    [asked] = made.requests
    assert asked.settings.logprobs == "topic"
    assert asked.output_schema is not None and "confidence" not in asked.output_schema["properties"]
    [effect] = effects(run).values()
    assert effect["meta"]["probability"] == 0.87 and effect["meta"]["tokens"] == 2


async def test_without_a_field_it_is_that_of_the_whole_answer(tmp_path: Path) -> None:
    made = Desk(tmp_path, [sure(0.6)], confidence={"source": "logprob"}, output=SHAPE, tools=[])
    assert (await made.run()).output["confidence"] == 0.6
    assert made.requests[0].settings.logprobs == ""


async def test_a_provider_that_says_none_ends_the_turn_with_a_clear_error(tmp_path: Path) -> None:
    run = await desk(tmp_path, sure(None)).run()
    assert (run.outcome, run.reason) == ("escalated", "format_mismatch")
    assert "practice-small-2026 has answered and does not say how probable the tokens of 'topic' are" in str(
        run.package
    )


async def test_what_is_declared_for_that_is_done(tmp_path: Path) -> None:
    give = {**ANSWER, "confidence": 0.0}
    run = await desk(tmp_path, sure(None), on={"format_mismatch": {"then": "continue", "give": give}}).run()
    assert (run.outcome, run.output) == ("completed", give)


async def test_the_next_tier_is_asked_for_them_too(tmp_path: Path) -> None:
    made = desk(tmp_path, Unavailable("not now", evidence={"sent": False}), Unavailable("no"), sure(0.7))
    made.model._script.clear()
    made.model._script.append(lambda r: Unavailable("no", retry_after=900) if r.tier == "cheap" else sure(0.7))
    assert (await made.run()).output["confidence"] == 0.7
    assert [(one.tier, one.settings.logprobs) for one in made.requests][-1] == ("strong", "topic")


REVIEW = {"review": {"when": "triage.confidence < threshold", "by": "lead", "within": "1h", "otherwise": "escalate"}}


@pytest.mark.parametrize(
    ("probability", "calibrated", "released"), [(0.97, True, True), (0.6, True, False), (0.97, False, False)]
)
async def test_a_review_s_threshold_releases_what_is_calibrated_and_sure(
    tmp_path: Path, probability: float, calibrated: bool, released: bool
) -> None:
    lines = [
        {"confidence": said / 100, "correct": at * 100 < said * 20} for said in range(5, 100, 5) for at in range(20)
    ]
    (tmp_path / "outcomes.jsonl").write_bytes(b"\n".join(orjson.dumps(one) for one in lines))
    stated = {"calibrated_on": "outcomes.jsonl"} if calibrated else {}
    run = await desk(tmp_path, sure(probability), stated=stated, steps=["triage", REVIEW]).run()
    assert (run.state == "ended") is released


async def test_a_python_agent_states_what_it_took_from_its_own_model(tmp_path: Path) -> None:
    async def triage(ctx: Any, given: Any) -> Any:
        return {**ANSWER, "confidence": 0.4}

    made = desk(tmp_path, sure(None), function=triage)
    assert (await made.run()).output["confidence"] == 0.4
    assert made.requests == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": "agreement"}, "needs `of`"),
        ({"source": "checker", "of": "topic"}, "belongs to agreement and logprob"),
        ({"source": "logprob", "of": "confidence"}, "holds the confidence"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Confidence.model_validate(fields)


# --- tokens --------------------------------------------------------------------------------------------

FIELDS = st.dictionaries(
    st.text(min_size=1, max_size=6),
    st.text(max_size=8) | st.integers(-99, 99) | st.booleans() | st.lists(st.integers(0, 9), max_size=3),
    min_size=1,
    max_size=4,
)


@given(FIELDS, st.data())
def test_a_field_s_probability_is_the_product_of_the_tokens_that_hold_its_value(
    fields: Any, data: st.DataObject
) -> None:
    text = orjson.dumps(fields).decode()
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=12)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    tokens = [{"token": piece.decode(errors="replace"), "bytes": [*piece], "logprob": -0.5} for piece in pieces]
    for name in fields:
        found = token_probability(tokens, text, name)
        assert found is not None
        probability, count = found
        assert 1 <= count <= len(tokens)
        assert probability == pytest.approx(2.718281828459045 ** (-0.5 * count))
    whole = token_probability(tokens, text)
    assert whole is not None and whole[0] == pytest.approx(2.718281828459045**-0.5)


def test_no_tokens_are_no_probability_and_none_is_above_one() -> None:
    assert token_probability([], "x") is None
    assert token_probability([{"token": "{", "logprob": -1.0}], "{", "topic") is None
    assert token_probability([{"token": "x", "logprob": 0.3}], "x") == (1.0, 1)
    assert token_probability([{"token": "x", "logprob": None}], "x") == (0.0, 1)
