"""Where an agent's confidence comes from (E5): a source that is declared, calibrated on recorded outcomes.

`classifier` calibrates itself on its texts. The raw number of the other sources (the share of samples that agree, a
probability of tokens, a checker's score) goes through a map that was fitted on recorded outcomes, where these support
one.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

import orjson

from tightship.agents.context import SURE, AgentContext
from tightship.agents.turn import AgentFunction
from tightship.controls.limits import sample_key
from tightship.core.errors import FormatMismatch, LoadError, WrongShape
from tightship.core.ports import Json
from tightship.review.calibrating import Fitted, fit_scaling, read_outcomes
from tightship.workflow.models import AgentSpec, Confidence

OWN: Final = "classifier"
"""The source that is calibrated where it is made."""


def calibrated(spec: AgentSpec, root: Path) -> bool:
    """Whether an agent's confidence may release anything.

    Args:
        spec: the agent's declaration. root: the workspace's folder.
    """
    confidence = spec.confidence
    if confidence is None or confidence.calibrated_on is None:
        return False
    if confidence.source == OWN:
        return (root / confidence.calibrated_on).is_file()
    return fitted(confidence, root)[0].scaling is not None


def fitted(confidence: Confidence, root: Path) -> tuple[Fitted, str]:
    """The map of a source other than a classifier, and the version of the outcomes that it was fitted on."""
    if confidence.calibrated_on is None:
        return Fitted(None, 0, "no recorded outcomes are named in `calibrated_on`"), ""
    path = root / confidence.calibrated_on
    try:
        stat = path.stat()
    except OSError:
        return Fitted(None, 0, f"there is no {confidence.calibrated_on} in the workspace"), ""
    return _fitted(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _fitted(path: Path, changed: int, size: int) -> tuple[Fitted, str]:
    try:
        found = fit_scaling(read_outcomes(path))
        return found, hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except LoadError as error:
        return Fitted(None, 0, error.message), ""


def answering(spec: AgentSpec) -> AgentSpec:
    """The agent as it is asked: how many samples agree, and how probable its tokens are, is not a model's to state."""
    confidence = spec.confidence
    if confidence is None or confidence.source not in ("agreement", "logprob"):
        return spec
    fields = spec.model_dump(mode="json", by_alias=True)
    if confidence.source == "agreement":
        fields.pop("confidence")
    shapes = {name: shape for name, shape in fields["output"].items() if name.removesuffix("?") != confidence.field}
    return AgentSpec.model_validate({**fields, "output": shapes})


def with_confidence(spec: AgentSpec, function: AgentFunction, root: Path) -> AgentFunction:
    """The agent's function with the confidence worked out as declared."""
    confidence = spec.confidence
    if confidence is None or confidence.source == OWN:
        return function

    async def agent(ctx: AgentContext, given: dict[str, Json]) -> Json:
        if confidence.source == "logprob" and spec.model is not None:
            out, raw = await _probable(ctx, spec, function, given)
        elif confidence.source == "agreement":
            out, raw = await _agreed(ctx, spec, confidence, function, given)
        else:
            out = await _called(function, ctx, given)
            found = out.get(confidence.field) if isinstance(out, dict) else None
            if isinstance(found, bool) or not isinstance(found, int | float) or not isinstance(out, dict):
                return out  # the declared shape says what is wrong with it
            raw = float(found)
            if not 0 <= raw <= 1:
                raise WrongShape(f"{spec.agent} gave {raw:g} as its {confidence.field}, which is no share from 0 to 1")
        return {**out, confidence.field: await _mapped(ctx, confidence, raw, root)}

    return agent


async def _mapped(ctx: AgentContext, confidence: Confidence, raw: float, root: Path) -> float:
    """The calibrated number, recorded with what it was made of: outcomes may be other ones when the turn is resumed."""
    journal, key = ctx.turn.session.journal, f"{ctx.key}/confidence"
    if key not in journal.decided:
        found, version = await asyncio.to_thread(fitted, confidence, root)
        value = raw if found.scaling is None else round(found.scaling(raw), 6)
        body: dict[str, Json] = {"source": confidence.source, "raw": raw, "confidence": value}
        body |= {"uncalibrated": found.why} if found.scaling is None else {"outcomes": version}
        await journal.decide(key, body)
    return float(journal.decided[key]["confidence"])


async def _agreed(
    ctx: AgentContext, spec: AgentSpec, confidence: Confidence, function: AgentFunction, given: dict[str, Json]
) -> tuple[dict[str, Json], float]:
    """The answer that most samples give, and their share. Each sample counts as a turn and is paid like one.

    X. Wang et al., "Self-consistency improves chain of thought reasoning in language models", ICLR 2023.
    """
    for number in range(2, confidence.samples + 1):
        for limits in ctx.turn.session.counters(spec.agent):
            limits.count_turn(sample_key(ctx.key, number))
        ctx.turn.samples = number  # counted again when the run is taken over

    async def sample(one: AgentContext) -> Json:
        return await _called(function, one, dict(given))

    outs = await ctx.parallel(*([sample] * confidence.samples))
    groups: dict[str, list[dict[str, Json]]] = {}
    for out in outs:
        if not isinstance(out, dict) or confidence.of not in out:
            raise WrongShape(f"{spec.agent} gave no {confidence.of}, on which its samples have to agree")
        groups.setdefault(normalised(out[confidence.of]), []).append(out)
    most = max(groups.values(), key=len)  # of several as large, the one that came first
    return most[0], len(most) / len(outs)


async def _probable(
    ctx: AgentContext, spec: AgentSpec, function: AgentFunction, given: dict[str, Json]
) -> tuple[dict[str, Json], float]:
    """The answer, and the probability of its tokens as the provider gives it.

    Raises:
        FormatMismatch: it gives none.
    """
    out = await _called(function, ctx, given)
    raw, model = ctx.turn.state.pop(SURE, (None, spec.model))
    if not isinstance(out, dict) or not isinstance(raw, int | float):
        of = spec.confidence.of if spec.confidence is not None else None
        whose = f"the tokens of {of!r}" if of else "its tokens"
        raise FormatMismatch(
            f"{spec.agent}: {model} has answered and does not say how probable {whose} are, so there is no confidence",
            needed="judge this case by hand; name a tier whose provider gives token probabilities, or another source",
            evidence={"model": model, "source": "logprob"},
        )
    return out, float(raw)


async def _called(function: AgentFunction, ctx: AgentContext, given: dict[str, Json]) -> Json:
    if inspect.iscoroutinefunction(function):
        return await function(ctx, given)
    value = await asyncio.to_thread(function, ctx, given)
    return await value if inspect.isawaitable(value) else value


def normalised(value: Json) -> str:
    """A value as its meaning goes: case, white space and the order of fields say nothing, nor the last digits."""
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS).decode()


def _plain(value: Json) -> Json:
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, float):
        rounded = round(value, 6)
        return int(rounded) if rounded.is_integer() else rounded
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
