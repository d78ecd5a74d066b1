"""Labels that travel with values: how far a value may be trusted and whose data it holds.

The default is the cautious one: what came from outside is untrusted until a declared source says otherwise.
The door carries them; rules that read them have their place in `effects/governance.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Integrity(IntEnum):
    """How far a value may steer what is done. The lower one wins when values meet (low-water mark)."""

    UNTRUSTED = 0
    SYSTEM = 1
    TRUSTED = 2


@dataclass(frozen=True, slots=True)
class Label:
    """Integrity, the data subjects a value is about, and where it came from."""

    integrity: Integrity = Integrity.TRUSTED
    subjects: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()

    def meet(self, other: Label) -> Label:
        """The label of a value made from both."""
        return Label(
            min(self.integrity, other.integrity),
            self.subjects | other.subjects,
            self.sources | other.sources,
        )


TRUSTED = Label()
