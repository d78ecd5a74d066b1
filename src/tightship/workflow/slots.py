"""The slots of a schedule: the moments that a cron expression names in a time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from croniter import croniter

NICKNAMES: Final = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_FIELD: Final = re.compile(r"[0-9A-Za-z*/,#?-]+")
_CHANCE: Final = re.compile(r"(?i)(?<![a-z])[hr](?![a-z])")
"""Croniter's words for a slot by chance: another one in every process."""
_MANY: Final = 10_000
"""Slots that are counted one by one."""
_FIX: Final = "write five fields (minute hour day month weekday), for example `0 7 * * mon-fri`"


def check_cron(text: str) -> str:
    """A cron expression, if it is one that names a time.

    Raises:
        ValueError: it is none; the message says what to write.
    """
    fields = text.split()
    if text not in NICKNAMES and (len(fields) != 5 or not all(map(_FIELD.fullmatch, fields))):
        raise ValueError(f"{text!r} is no cron expression; {_FIX}")
    if text not in NICKNAMES and _CHANCE.search(text):
        raise ValueError("a slot is no matter of chance, since every worker has to see the same; name the minute")
    try:
        next_slot(text, "UTC", 0.0)
    except (ValueError, KeyError) as error:  # CroniterError is a ValueError
        raise ValueError(f"{text!r} names no time ({error}); {_FIX}") from None
    return text


def check_timezone(name: str) -> str:
    """A time zone's name, if the machine's database or the package `tzdata` has it.

    Raises:
        ValueError: it has not.
    """
    try:
        _zone(name)
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"there is no time zone {name!r}; use a name of the IANA database, for example Europe/Berlin"
        ) from None
    return name


def last_slot(cron: str, timezone: str, now: float) -> float:
    """The last slot that has come by now; all in seconds since the epoch."""
    return _iterator(cron, timezone, now + 1e-3).get_prev(float)


def next_slot(cron: str, timezone: str, after: float) -> float:
    """The first slot after a moment; all in seconds since the epoch."""
    return _iterator(cron, timezone, after).get_next(float)


def slots_between(cron: str, timezone: str, after: float, before: float) -> list[float]:
    """The slots after one moment and before another (s), the earliest 10,000 of them at most."""
    slots = _iterator(cron, timezone, after)
    found: list[float] = []
    while len(found) < _MANY and (slot := slots.get_next(float)) < before:
        found.append(slot)
    return found


def slot_name(slot: float) -> str:
    """A slot as a run's reference names it: `schedule:2026-03-01T06:00:00Z`."""
    return f"schedule:{datetime.fromtimestamp(slot, UTC):%Y-%m-%dT%H:%M:%SZ}"


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _iterator(cron: str, timezone: str, start: float) -> croniter:
    from croniter import croniter

    return croniter(cron, datetime.fromtimestamp(start, _zone(timezone)))
