"""The sample company of the tests, at a time that stands still, and a refund of one of its orders."""

from __future__ import annotations

import random
from pathlib import Path

from tightship.company import Call, Company

NOW = 1_800_000_000.0


def opened(db: str | Path = ":memory:") -> Company:
    return Company(db, clock=lambda: NOW, rng=random.Random(7))


def refund(order_id: str, amount: float, key: str | None = None, **more: str) -> Call:
    return Call(body={"order_id": order_id, "amount": amount, "reason": "goodwill", **more}, key=key)
