"""What a person wrote in a message, apart from what the message quotes or forwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tightship.agents.offline.text import MAX_CHARACTERS

_QUOTED: Final = re.compile(r"^\s*(?:>|\|)")
_SIGNATURE: Final = re.compile(r"^-- ?$")
_FORWARDED: Final = re.compile(
    r"^\s*(?:"
    r"-{2,}\s*(?:original message|forwarded message|forwarded by|weitergeleitete nachricht|message d'origine)\b.*|"
    r"begin forwarded message:?|"
    r"_{8,}|"
    r"(?:on|am|le)\s.{3,120}\b(?:wrote|schrieb|a écrit)\s*:|"
    r".{3,120}\b(?:wrote|writes|forwarded)\s*:"
    r")\s*$",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(
    r"^\s*(?:from|sent|date|to|cc|subject|reply-to|von|gesendet|an|betreff)\s*:\s*\S", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Message:
    """A message taken apart: the writer's own words, what is quoted or forwarded, and the signature."""

    own: str
    quoted: str
    signature: str = ""


def take_apart(text: str) -> Message:
    """Tell the writer's own words from quoted ones.

    Lines that begin with `>` are quotations and a line `-- ` begins the signature (RFC 3676, sections 4.5 and 4.3).
    What follows a line such as "Forwarded message" or "On … wrote:", or a block of two or more header lines (From:,
    Subject:, …), is quoted up to the end; own words below it are lost, which is the safe side.
    """
    own: list[str] = []
    quoted: list[str] = []
    lines = text[:MAX_CHARACTERS].splitlines()
    for number, line in enumerate(lines):
        if _FORWARDED.match(line) or _is_header_block(lines, number):
            quoted += lines[number:]
            break
        if _SIGNATURE.match(line):
            return Message(_joined(own), _joined(quoted), _joined(lines[number + 1 :]))
        (quoted if _QUOTED.match(line) else own).append(line)
    return Message(_joined(own), _joined(quoted))


def _is_header_block(lines: list[str], number: int) -> bool:
    return len(lines) > number + 1 and all(_HEADER.match(line) for line in lines[number : number + 2])


def _joined(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines).strip()
