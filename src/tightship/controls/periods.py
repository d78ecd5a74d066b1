"""Budget periods in store time (UTC) and the forecast of when an envelope will be empty."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from tightship.controls.budgets import ALERT_AT
from tightship.core.ports import Json

Period = Literal["run", "day", "month"]
PERIODS: Final[tuple[Period, ...]] = ("run", "day", "month")


def period_key(period: Period, at: float) -> str:
    """`2026-03-01` for a day, `2026-03` for a month, empty for a run.

    Args:
        at: store time in seconds since the epoch; days and months are those of UTC.
    """
    if period == "run":
        return ""
    moment = datetime.fromtimestamp(at, UTC)
    return moment.strftime("%Y-%m-%d" if period == "day" else "%Y-%m")


def period_bounds(period: Period, at: float) -> tuple[float, float]:
    """Start (included) and end (excluded) of the day or month that a moment lies in, in seconds since the epoch.

    Raises:
        ValueError: the period is `run`, which has no bounds in time.
    """
    if period == "run":
        raise ValueError("a run's budget has no bounds in time")
    start = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return start.timestamp(), (start + timedelta(days=1)).timestamp()
    start = start.replace(day=1)
    following = (start + timedelta(days=32)).replace(day=1)
    return start.timestamp(), following.timestamp()


@dataclass(frozen=True, slots=True)
class Forecast:
    """How an envelope will stand if spending goes on as it did.

    Attributes:
        spent: so far in the period; in the unit of the limit.
        limit: None where there is none.
        burn: spent per second.
        at_end: what will have been spent at the end of the period; None without an end.
        exhausted_at: when the limit will be reached (s since the epoch); None when not within the period.
        used: share of the limit that is spent, None without a limit.
        alert: the share has reached 80 %, or the limit will be reached before the period ends.
    """

    spent: int
    limit: int | None
    burn: float
    at_end: int | None
    exhausted_at: float | None
    used: float | None
    alert: bool

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def forecast(
    spent: int, limit: int | None, *, start: float, now: float, end: float | None = None, since: float | None = None
) -> Forecast:
    """A straight line through what was spent so far.

    Args:
        spent: since `start`, in the unit of the limit.
        limit: the envelope's limit, or None.
        start: when the period began, seconds since the epoch.
        now: store time.
        end: when the period ends, or None for an envelope that does not renew.
        since: when spending began, where that is later than the period's start (the first day of use).
    """
    elapsed = max(now - max(start, since if since is not None else start), 1.0)
    burn = spent / elapsed
    at_end = None if end is None else round(spent + burn * max(end - now, 0.0))
    if limit is None:
        return Forecast(spent, None, burn, at_end, None, None, False)
    used = spent / limit if limit > 0 else 1.0
    exhausted_at: float | None = None
    if spent >= limit:
        exhausted_at = now
    elif burn > 0:
        reached = now + (limit - spent) / burn
        exhausted_at = reached if end is None or reached < end else None
    runs_out = exhausted_at is not None and end is not None
    return Forecast(spent, limit, burn, at_end, exhausted_at, used, used >= ALERT_AT or runs_out)
