"""The escalation package: one form for everything that reaches a person (E1 to E8)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tightship.core.errors import InputRejected, NearRepeat, TightshipError, WorkException
from tightship.core.ports import Json
from tightship.core.signals import OverBudget, Signal
from tightship.review._plain import plain
from tightship.review._readable import readable, short
from tightship.review._texts import AGAIN, text_for

NUMBERS: Final[Mapping[str, str]] = {
    "unavailable": "E1",
    "data_missing": "E2",
    "rule_conflict": "E3",
    "out_of_scope": "E4",
    "low_confidence": "E5",
    "format_mismatch": "E6",
    "unforeseen": "E7",
    "duplicate": "E7",
    "limit": "E7",
    "stalled": "E7",
    "boundary": "E7",
}
_PARTIAL_LIMIT = 64_000


def _no_text(value: Any) -> Any:
    return "" if value is None else value


Text = Annotated[str, BeforeValidator(_no_text)]
"""A text that may be left out; null means the same as an empty one."""


class Option(BaseModel):
    """One thing that the person may choose; `confidence` is in [0, 1] where the agents have one."""

    model_config = ConfigDict(frozen=True)

    id: str
    label: str
    confidence: Annotated[float, Field(ge=0.0, le=1.0)] | None = None


class Package(BaseModel):
    """What a person needs to decide a case without looking anywhere else.

    Attributes:
        kind: `unavailable`, `data_missing`, … (the words of `on:` in a workflow), or `limit`, `boundary`, `budget`,
            `approval`, `denied`, `halted`, `review`, `residual`.
        title: one line for the list; it holds nothing of the case itself, since lists are less guarded.
        what_happened: in plain words.
        tried: what was tried before, one line each.
        needed: what is asked of the person.
        options: what may be chosen.
        evidence: what the case can be judged by (JSON).
        deadline: store time (s) by which somebody has to decide, or None.
        run, workflow, key, agent: where it happened.
        partial: names of the finished steps with their outputs.
        rules: the rules in question, where two contradict each other.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str
    title: str = Field(max_length=300)
    what_happened: str
    tried: tuple[str, ...] = ()
    needed: Text = ""
    options: tuple[Option, ...] = ()
    evidence: Mapping[str, Any] = {}
    deadline: float | None = None
    run: Text = ""
    workflow: Text = ""
    key: Text = ""
    agent: Text = ""
    partial: Mapping[str, Any] = {}
    rules: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """E1 to E7, or empty for what is no exception (a review, a budget question)."""
        return NUMBERS.get(self.kind, "")

    def to_json(self) -> dict[str, Json]:
        """The package as a JSON object."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str | bytes) -> Package:
        """The package that `to_json` wrote; fields that this version does not know are passed over.

        Raises:
            InputRejected: it is no package.
        """
        try:
            if isinstance(data, str | bytes):
                return cls.model_validate_json(data)
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputRejected(f"this is no escalation package: {where}: {first['msg']}") from None

    def render(self, width: int = 100, full: bool = False) -> str:
        """The package as text, for a terminal or a mail: the evidence whole, finished steps in short.

        Args:
            width: cells of a line, at which texts are wrapped.
            full: what the finished steps gave is shown whole too.
        """
        lines = [self.title, "", *_wrapped(self.what_happened, width)]
        lines += _block("Tried so far", self.tried)
        lines += _block("Rules", self.rules)
        if self.evidence:
            lines += ["", "Evidence:"]
            for name, value in self.evidence.items():
                lines += readable(name, value, width, 2)
        lines += self._finished(width, full)
        if self.needed:
            lines += ["", *_wrapped(f"Needed: {self.needed}", width)]
        lines += _block("Options", [_option(option) for option in self.options])
        if self.deadline is not None:
            lines += ["", f"Until {datetime.fromtimestamp(self.deadline, UTC):%Y-%m-%d %H:%M} UTC"]
        place = " · ".join(part for part in (self.workflow, f"run {self.run}" if self.run else "", self.key) if part)
        return "\n".join([*lines, "", place] if place else lines)

    def _finished(self, width: int, full: bool) -> list[str]:
        lines: list[str] = []
        for name, value in self.partial.items():
            if name in self.evidence and self.evidence[name] == value:
                lines.append(f"  {name}: as above")
            elif full:
                lines += readable(name, value, width, 2)
            else:
                lines.append(f"  {name}: {short(value, max(40, width - len(name) - 5))}")
        return ["", "Finished steps:", *lines] if lines else []


@dataclass(frozen=True, slots=True)
class Situation:
    """Where and when something happened, and what there is so far; the fields are those of the package."""

    run: str = ""
    workflow: str = ""
    key: str = ""
    agent: str = ""
    tried: Sequence[str] = ()
    partial: Mapping[str, Json] = field(default_factory=dict[str, Json])
    deadline: float | None = None
    rules: Sequence[str] = ()

    @property
    def who(self) -> str:
        """How the place is called in a title: the agent, else the step, else the workflow."""
        return self.agent or self.key.rpartition("/")[2] or self.workflow or "the run"


def from_exception(error: BaseException, situation: Situation | None = None) -> Package:
    """The package for an exception, a reached limit, a crossed boundary or a stop.

    Args:
        error: a TightshipError or a Signal; anything else counts as unforeseen.
        situation: where it happened and what there is so far; without a key it is that of a run which has ended.
    """
    at = situation or Situation()
    text = text_for(error)
    message = _message(error)
    needed, evidence = text.needed, dict[str, Any]()
    offered = [AGAIN if one[0] == "retry" and not at.key else one for one in text.options]
    options = [Option(id=name, label=label) for name, label in offered]
    if isinstance(error, WorkException):
        needed = error.needed or needed
        evidence = dict(error.evidence)
        options = _options(error.options) or options
    elif isinstance(error, NearRepeat):
        evidence = dict(error.evidence)
    rules = tuple(at.rules) or _rules(evidence.get("rules"))
    if isinstance(error, Signal) and error.scope:
        evidence["scope"] = error.scope
    if isinstance(error, OverBudget) and error.unit:
        evidence["unit"] = error.unit
    if isinstance(error, TightshipError):
        evidence |= {name: value for name, value in (("where", error.where), ("fix", error.fix)) if value}
    evidence["error"] = type(error).__name__
    return Package(
        kind=text.kind,
        title=f"{at.who}: {text.title}",
        what_happened=f"{text.what} {message}".strip(),
        tried=tuple(at.tried),
        needed=_text(needed),
        options=tuple(options),
        evidence=plain(evidence),
        rules=rules,
        **_place(at),
    )


def _place(at: Situation) -> dict[str, Any]:
    """The fields of a package that say where it happened, until when somebody has to decide, and what was finished."""
    named = {name: getattr(at, name) for name in ("deadline", "run", "workflow", "key", "agent")}
    return {**named, "partial": plain(at.partial, _PARTIAL_LIMIT)}


def _text(needed: Any) -> str:
    """What an agent's exception says that it needs: a text by its contract, a list of names by habit."""
    return ", ".join(str(one) for one in needed) if isinstance(needed, list | tuple | set) else str(needed)


def for_residual(situation: Situation, effects: Sequence[Mapping[str, Json]]) -> Package:
    """The package for what could not be undone: the work has ended, and these effects remain outside.

    Args:
        situation: where.
        effects: one JSON object for each effect that remains (name, key, why).
    """
    count = len(effects)
    return Package(
        kind="residual",
        title=f"{situation.workflow or 'the run'}: {count} effect{'s' * (count != 1)} could not be undone",
        what_happened="The work was stopped and undone, but not everything that it had done outside could be undone.",
        tried=tuple(situation.tried),
        needed="Undo what remains by hand where it is wrong, or accept it, and say so.",
        options=(
            Option(id="undone", label="I have undone it by hand"),
            Option(id="accepted", label="It may stay as it is"),
        ),
        evidence=plain({"effects": list(effects)}),
        **_place(situation),
    )


def _message(error: BaseException) -> str:
    if isinstance(error, TightshipError):
        return str(plain(error.message))
    return str(plain(error.reason if isinstance(error, Signal) else f"{type(error).__name__}: {error}"))


def _options(given: Sequence[Mapping[str, Any]]) -> list[Option]:
    """An agent's own options; what is not well formed is taken as far as it goes."""
    options: list[Option] = []
    for number, option in enumerate(given, 1):
        given_confidence = option.get("confidence")
        confidence = float(given_confidence) if isinstance(given_confidence, int | float) else -1.0
        name = option.get("id", option.get("value", number))
        label = str(option.get("label", option.get("value", name)))
        options.append(Option(id=str(name), label=label, confidence=confidence if 0 <= confidence <= 1 else None))
    return options


def _rules(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list | tuple):
        return ()
    return tuple(
        ": ".join(str(rule[name]) for name in ("id", "text") if rule.get(name))
        if isinstance(rule, Mapping)
        else str(rule)
        for rule in given
    )


def _block(heading: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{heading}:", *(f"  - {line}" for line in lines)] if lines else []


def _wrapped(text: str, width: int) -> list[str]:
    return [part for line in text.split("\n") for part in textwrap.wrap(line, width, break_long_words=False) or [""]]


def _option(option: Option) -> str:
    sure = "" if option.confidence is None else f" ({option.confidence:.0%})"
    return f"{option.id}: {option.label}{sure}"
