"""Claims on business keys: one piece of work is done once, whichever run gets to it first (F9).

A claim is held from the admit of the effect, done once it is settled, and released when the effect failed for
certain or was undone. A write whose outcome is unknown keeps its claim: it may have happened. The ledger holds a
keyed hash of the normalised business key (`Ledger.mac`), so that keys cannot be guessed from it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from tightship.core import kinds
from tightship.core.errors import InvalidArguments
from tightship.core.ports import Delta, EntryView

_KEEPING = frozenset({"OutcomeUnknown", "DuplicateClaim"})
"""Errors that release nothing: the write may have happened, or the claim is another run's."""


def folded(text: str) -> str:
    """A text as people compare it: compatibility forms, case and runs of blanks make no difference."""
    # Folding case can leave text that is not normalised, hence the second pass (Unicode, section 3.13, D145 to D147).
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(plain.split())


def normalise(key: str) -> str:
    """A business key as people mean it: compatibility forms, case and runs of blanks make no difference.

    `Refund  O-2001` and `refund o-2001` are one piece of work. Taking two for one delays a run; taking one for two
    pays twice.

    Raises:
        InvalidArguments: nothing is left of it.
    """
    text = folded(key)
    if not text:
        raise InvalidArguments("the claim's business key is empty", fix="let the claim name what is done once")
    return text


class ClaimsProjection:
    """The `claims` table: who holds, or has done, each piece of work.

    It reads `claim` of an admit, `claim` of that effect's settle (only the effect that holds a claim may carry it),
    and `releases` of an undo's settle; and `claim` of what an outside system has pushed, which is done with it.
    """

    table = "claims"
    key_columns: Sequence[str] = ("key",)
    kinds = frozenset({kinds.ADMITTED, kinds.SETTLED, kinds.CONTEXT, kinds.CONFLICT})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Held, done or released."""
        body = entry.body
        claim = body.get("claim")
        if entry.kind != kinds.SETTLED:
            if claim:
                state = "held" if entry.kind == kinds.ADMITTED else "done"
                yield Delta((claim,), set={"run": entry.run, "effect": entry.key, "n": entry.n, "state": state})
            return
        error = body.get("error")
        if claim:
            if body.get("refused"):
                yield Delta((claim,), set={"state": "released"})
            elif error is None:
                yield Delta((claim,), set={"state": "done"})
            elif error.get("error") not in _KEEPING:
                yield Delta((claim,), set={"state": "released"})
        releases = body.get("releases")
        if releases and error is None and not body.get("refused"):
            yield Delta((releases,), set={"state": "released"})
