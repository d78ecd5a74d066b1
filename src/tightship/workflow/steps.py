"""Reading steps: from YAML with marks, from the canonical form, and from what Python builders pass.

A step is written as an agent's name, as a mapping with a pattern's word (`checkpoint: …`, other keys are its fields),
or as a mapping with an agent's name (`respond: {with: …}`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer, ValidationError

from tightship.core.errors import LoadError
from tightship.workflow._explain import load_errors
from tightship.workflow.source import Mark, MarkedDict, MarkedList, did_you_mean, find_mark, mark_of
from tightship.workflow.tree import Step, patterns, reading

MAX_STEPS: Final = 500

_problems: ContextVar[list[LoadError] | None] = ContextVar("tightship_step_problems", default=None)


class Unreadable(Step):
    """Stands in for a step that could not be read, so that the rest of the file is still checked."""


@contextlib.contextmanager
def collecting(problems: list[LoadError]) -> Generator[None]:
    """Within it, problems of steps are added to the list instead of being raised."""
    token = _problems.set(problems)
    try:
        yield
    finally:
        _problems.reset(token)


def _fail(errors: Sequence[LoadError]) -> Step:
    """Report and stand in, or raise the first."""
    problems = _problems.get()
    if problems is None:
        raise errors[0]
    problems.extend(errors)
    return Unreadable()


def _error(mark: Mark | None, message: str, fix: str) -> LoadError:
    return mark.error(message, fix=fix) if mark is not None else LoadError(message, fix=fix)


def parse_step(raw: Any, place: Mark | None = None) -> Step:
    """The step that `raw` describes.

    Args:
        raw: a step, an agent's name, or a mapping.
        place: where it stands, when it does not say so itself.

    Raises:
        LoadError: it describes none (unless within `collecting`).
    """
    if isinstance(raw, Step):
        return raw
    try:
        step_class, fields, what = _read(raw, place)
        mark = mark_of(raw) or place
        unknown = [name for name in fields if name not in step_class.words() and name not in step_class.model_fields]
        if unknown:
            return _fail([_unknown(name, fields, step_class, what, mark) for name in unknown])
        token = reading.set(True)
        try:
            step = step_class.model_validate(fields)
        finally:
            reading.reset(token)
    except LoadError as error:
        return _fail([error])
    except ValidationError as error:
        return _fail(_located(error, raw))
    step._mark, step._raw = mark, fields if isinstance(fields, MarkedDict) else None
    wrong = list[LoadError]()
    for _, expression in step.expressions():
        try:
            expression.compile()
        except LoadError as error:
            wrong.append(error)
    return _fail(wrong) if wrong else step


def _located(error: ValidationError, raw: Any) -> list[LoadError]:
    step_class, fields, what = _read(raw)
    mark = mark_of(raw)
    found = load_errors(error, fields, step_class, what, None, step_class.written)
    return [_error(mark, one.message, one.fix or "correct it") if one.line is None else one for one in found]


def _unknown(name: str, fields: Any, step_class: type[Step], what: str, mark: Mark | None) -> LoadError:
    place = find_mark(fields, [name], key=True) or mark
    return _error(place, f"{what} has no field {name!r}", did_you_mean(name, step_class.words()))


def _read(raw: Any, place: Mark | None = None) -> tuple[type[Step], Mapping[str, Any], str]:
    """The class, the fields, and what to call the step in messages."""
    if isinstance(raw, str):
        return patterns.get("agent"), {"agent": raw}, f"the step {str(raw)!r}"
    mark = mark_of(raw) or place
    if not isinstance(raw, Mapping) or not raw:
        raise _error(
            mark,
            f"a step is an agent's name or a mapping, not {type(raw).__name__ if raw is not None else 'nothing'}",
            "write an agent's name, or one of: " + ", ".join(patterns.words()),
        )
    word = next((str(key) for key in raw if patterns.find(str(key)) is not None), None)
    if word is not None:
        return _read_pattern(raw, word, mark)
    return _read_agent(raw, mark)


def _read_pattern(raw: Mapping[str, Any], word: str, mark: Mark | None) -> tuple[type[Step], Mapping[str, Any], str]:
    step_class = patterns.get(word)
    try:
        spelled = step_class.spell(raw[word])
    except ValueError as error:
        raise _error(find_mark(raw, [word]) or mark, str(error), "write its fields below it") from None
    return step_class, _merge(raw, word, spelled, step_class.short), f"the step {word!r}"


def _read_agent(raw: Mapping[str, Any], mark: Mark | None) -> tuple[type[Step], Mapping[str, Any], str]:
    beside = patterns.get("agent").words() - {"agent"}
    candidates = [str(key) for key in raw if str(key) not in beside]
    if len(candidates) != 1:
        listed = ", ".join(repr(name) for name in candidates) or "only common fields"
        near = next((did_you_mean(name, patterns.words()) for name in candidates), "")
        fix = (
            near
            if near.startswith("did")
            else f"begin it with an agent's name or one of: {', '.join(patterns.words())}"
        )
        raise _error(mark, f"this step names no pattern and not one agent (found {listed})", fix)
    name = candidates[0]
    value = raw[name]
    if value is not None and not isinstance(value, Mapping):
        place = find_mark(raw, [name], key=True) or mark
        raise _error(place, f"there is no pattern {name!r}", did_you_mean(name, patterns.words()))
    merged = _merge(raw, name, value or {}, None)
    if "agent" in merged:
        raise _error(mark, f"the step {name!r} names two agents", "delete 'agent' from its fields")
    merged.put("agent", name, find_mark(raw, [name], key=True), find_mark(raw, [name], key=True))
    return patterns.get("agent"), merged, f"the step {name!r}"


def _merge(raw: Mapping[str, Any], word: str, spelled: Mapping[str, Any], short: str | None) -> MarkedDict:
    """One mapping of the fields given after the word and those given beside it."""
    merged = MarkedDict(mark_of(raw))
    source = raw[word]
    for name, value in spelled.items():
        if isinstance(source, MarkedDict) and spelled is source:
            merged.put(str(name), value, source.keys_at.get(str(name)), source.values_at.get(str(name)))
        else:
            place = find_mark(raw, [word])
            merged.put(str(name), value, place, place)
    for name, value in raw.items():
        if name == word:
            continue
        place = find_mark(raw, [str(name)], key=True)
        if str(name) in merged:
            raise _error(place or merged.mark, f"the field {name!r} is given twice", "delete one of them")
        merged.put(str(name), value, place, find_mark(raw, [str(name)]))
    return merged


def parse_steps(raw: Any) -> tuple[Step, ...]:
    """The steps of a list; a list inside it is a sequence of its own.

    Raises:
        ValueError: it is no list, or is empty.
        LoadError: one of them is no step (unless within `collecting`).
    """
    if isinstance(raw, str | Mapping) or not isinstance(raw, Sequence):
        raise ValueError("steps are a list; begin each with '-'")
    if not raw:
        raise ValueError("there is no step in it; add one")
    if len(raw) > MAX_STEPS:
        raise ValueError(f"at most {MAX_STEPS} steps stand in one list")
    places: list[Mark | None] = list(raw.items_at) if isinstance(raw, MarkedList) else [None] * len(raw)
    return tuple(parse_block(one, place) for one, place in zip(raw, places, strict=True))


def parse_block(raw: Any, place: Mark | None = None) -> Step:
    """A step, or a list of them as one sequence. Raises as `parse_step` and `parse_steps` do."""
    if isinstance(raw, list | tuple):
        sequence = patterns.get("sequence").model_validate({"steps": parse_steps(raw)})
        sequence._mark = mark_of(raw)
        return sequence
    return parse_step(raw, place)


def _block(raw: Any) -> Step:
    return parse_block(raw)


def _data(step: Step) -> Any:
    return step.to_data()


def _all_data(steps: Sequence[Step]) -> Any:
    return [step.to_data() for step in steps]


Children = Annotated[tuple[Step, ...], BeforeValidator(parse_steps), PlainSerializer(_all_data)]
"""A field that holds a list of steps."""

Block = Annotated[Step, BeforeValidator(_block), PlainSerializer(_data)]
"""A field that holds a step, or a list of steps that run one after the other."""
