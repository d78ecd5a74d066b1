"""A case as a person reads it: its package as text as wide as the terminal, with what remains outside opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tightship.core.errors import InputRejected

if TYPE_CHECKING:
    from tightship.ledger import Ledger

_WIDEST: Final = 100
"""Cells of a line of text, however wide the terminal is."""
_REMAINS: Final = ("effects", "effects that remain")
"""Where a package's evidence lists effects that could not be undone."""


async def opened(ledger: Ledger, package: Any) -> Any:
    """The package with the arguments of effects that remain, which it holds by address: who cleans up needs them."""
    evidence = package.get("evidence") if isinstance(package, Mapping) else None
    if not isinstance(evidence, Mapping):
        return package
    effects = {name: evidence[name] for name in _REMAINS if isinstance(evidence.get(name), list)}
    addresses = [one["args"] for listed in effects.values() for one in listed if _by_address(one)]
    if not addresses:
        return package
    values = await ledger.values(addresses, erased="(erased)")
    filled = {
        name: [{**one, "args": values[one["args"]]} if _by_address(one) else one for one in listed]
        for name, listed in effects.items()
    }
    return {**package, "evidence": {**evidence, **filled}}


def _by_address(effect: Any) -> bool:
    return isinstance(effect, Mapping) and isinstance(effect.get("args"), str) and bool(effect["args"])


def rendered(package: Any, full: bool = False, taken: int = 0) -> str:
    """The package as text.

    Args:
        package: as it was stored. full: what finished steps gave is shown whole.
        taken: cells of each line that something else takes.
    """
    from tightship.cli._shell import dumps
    from tightship.cli._tables import terminal_width
    from tightship.review.package import Package

    try:
        return Package.from_json(package).render(min(_WIDEST, terminal_width(taken)), full)
    except InputRejected:  # erased, or a report of another form
        return dumps(package, indent=True)
