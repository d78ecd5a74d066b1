"""Messages of a run of agents, as logs hold them: who says what, to whom, in which words.

A role is a name, with an addressee or a remark in brackets where a log has one: `Orchestrator (-> WebSurfer)` speaks to
`WebSurfer`; `Orchestrator (thought)` is an aside, which nobody else hears.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tightship.core.errors import InputRejected

LONGEST: Final = 20_000
"""Characters of one message that are looked at."""

_ROLE = re.compile(r"^(?P<speaker>.*?)\s*\(\s*(?P<arrow>->|→)?\s*(?P<rest>[^)]*)\)?\s*$", re.DOTALL)
_WORD = re.compile(r"\w+")
_COMMON: Final = frozenset(
    _WORD.findall(
        "the a an of to in on for and or is are was be by with from at as it its this that these those please "
        "i you we he she they"
    )
)


@dataclass(frozen=True, slots=True)
class Said:
    """One message.

    Attributes:
        speaker: who. addressee: to whom, empty where the role does not say it.
        aside: a remark that is no message to anybody (thoughts, notes of the runtime).
        text: what, cut after `LONGEST` characters.
    """

    speaker: str
    text: str
    addressee: str = ""
    aside: bool = False


def said(message: Mapping[str, Any]) -> Said:
    """Read one message.

    Raises:
        InputRejected: it has no role or no text.
    """
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role.strip():
        raise InputRejected("a message has no role", fix='write {"role": "NAME", "content": "TEXT"}')
    text = "" if content is None else _text(content)
    if text is None:
        raise InputRejected(f"the content of a message by {role!r} is no text", fix="give text, or parts with a `text`")
    text = text[:LONGEST]
    found = _ROLE.match(role.strip())
    if found is None or not found["speaker"]:
        return Said(role.strip(), text)
    if found["arrow"]:
        return Said(found["speaker"], text, addressee=found["rest"].strip() or "?")
    return Said(found["speaker"], text, aside=True)


def _text(content: Any) -> str | None:
    """Text, or the text of the parts that chat interfaces give; None where there is none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return None
    parts: list[str] = []
    for part in content:
        one = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(one, str):
            parts.append(one)
        elif not isinstance(part, Mapping):
            return None
    return "\n".join(parts)


def transcript(messages: Sequence[Any]) -> Iterator[Said]:
    """Read messages one after the other.

    Raises:
        InputRejected: one of them is none; the error says which.
    """
    for position, message in enumerate(messages):
        try:
            if not isinstance(message, Mapping):
                raise InputRejected("this is no message", fix='write {"role": "NAME", "content": "TEXT"}')
            yield said(message)
        except InputRejected as error:
            raise InputRejected(error.message, where=f"message {position}", fix=error.fix) from None


def words(text: str) -> list[str]:
    """Its words in lower case and in order, numbers included, without the commonest ones."""
    return [word for word in _WORD.findall(text.lower()) if word not in _COMMON]


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """What two sets of words have in common, 0 to 1 (P. Jaccard, 1901)."""
    return len(one & other) / len(one | other) if one and other else 0.0
