"""Groups of words that mean much the same in one line of business.

With a few hundred labelled sentences most words occur once or twice; naming the group that a word belongs to lets a
classifier learn from one sentence about a "parcel" what it should think of a "package". (Word classes as features:
Miller, Guinness and Zamanian, "Name tagging with word clusters and discriminative training", HLT-NAACL 2004; here the
groups are written by people who know the business.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tightship.agents.offline.text import words
from tightship.core.errors import LoadError

_ENTRY: Final = re.compile(r'"([^"]+)"|(\S+)')
_LINE: Final = re.compile(r"^([a-z][a-z_0-9]*)\s*=\s*(\S.*)$")
_Pattern = tuple[tuple[str, bool], ...]


class Concepts:
    """A list of named word groups.

    Args:
        groups: for each name its words and phrases; a trailing `*` stands for any ending.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        self._exact: dict[str, list[tuple[str, _Pattern]]] = {}
        self._prefixes: dict[str, list[tuple[str, _Pattern]]] = {}
        for name, entries in groups.items():
            for entry in entries:
                pattern = tuple((part.rstrip("*"), part.endswith("*")) for part in entry.casefold().split())
                first, open_end = pattern[0]
                table = self._prefixes if open_end else self._exact
                table.setdefault(first[:_HEAD] if open_end else first, []).append((name, pattern))
        self.names = tuple(groups)

    @classmethod
    def read(cls, path: Path) -> Concepts:
        """Read a file of lines such as `parcel = parcel* package* "post office"`; `#` starts a comment line.

        Raises:
            LoadError: a line is not of that form, or a name stands twice.
        """
        groups: dict[str, list[str]] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.match(line)
            if match is None or match[1] in groups:
                raise LoadError(
                    "this is not a new group of words",
                    file=str(path),
                    line=number,
                    fix='write: name = word wor* "two words"',
                )
            groups[match[1]] = [phrase or word for phrase, word in _ENTRY.findall(match[2])]
        return cls(groups)

    def find(self, text: str) -> list[str]:
        """The names of the groups that a text touches, in order of the text, each as often as it is touched."""
        sequence = words(text)
        found: list[str] = []
        for position, word in enumerate(sequence):
            candidates = [*self._exact.get(word, ()), *self._prefixes.get(word[:_HEAD], ())]
            for length in range(1, min(_HEAD, len(word) + 1)):
                candidates += self._prefixes.get(word[:length], ())
            found += dict.fromkeys(name for name, pattern in candidates if _fits(pattern, sequence, position))
        return found


_HEAD: Final = 4
"""Prefix patterns are filed under their first letters, at most so many."""


def _fits(pattern: _Pattern, sequence: Sequence[str], position: int) -> bool:
    if position + len(pattern) > len(sequence):
        return False
    return all(
        word.startswith(part) if open_end else word == part
        for (part, open_end), word in zip(pattern, sequence[position:], strict=False)
    )
