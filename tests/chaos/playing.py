"""Plays cases of cases.py in processes of their own, shared out among workers, and says what is wrong with each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

CASES = Path(__file__).with_name("cases.py")
WORKERS = 2
SIDES = ("before", "after")
ALL = bool(os.environ.get("CHAOS_ALL"))
"""Whether every point is played from both sides (`make chaos`)."""


def play(cases: Sequence[str], store: str = "") -> list[dict[str, Any]]:
    """The undisturbed run and then these cases, in a process of their own; one finding for each.

    Args:
        store: the database of a Postgres server, where the cases are not to be played in folders.
    """
    done = subprocess.run(
        [sys.executable, str(CASES), *cases],
        check=False,
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "CHAOS_STORE": store},
    )
    found = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(cases) + 1, f"the cases broke off: {done.stdout[-500:]} {done.stderr[-2000:]}"
    return found


def play_all(cases: Sequence[str], store: str = "") -> dict[str, dict[str, Any]]:
    """These cases, shared out among workers."""
    shares = [list(cases[start::WORKERS]) for start in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        played = list(pool.map(lambda share: play(share, store), [share for share in shares if share]))
    return {one["case"]: one for share in played for one in share[1:]}


def complaint(one: dict[str, Any], points: Sequence[str], store: str) -> str:
    """What is wrong with a case, and how to see it again."""
    number = one["case"].split(":")[0]
    label = points[int(number) - 1] if number.isdigit() else "by name"
    again = f"{'CHAOS_STORE=postgres ' if store else ''}{sys.executable} {CASES} {one['case']}"
    return f"{one['case']} ({label}): {'; '.join(one['problems'])}\n    again: {again}"


def check(cases: Sequence[str], points: Sequence[str], store: str = "") -> dict[str, dict[str, Any]]:
    """Play these cases and require that each ends as the undisturbed run did."""
    played = play_all(cases, store)
    bad = [complaint(played[case], points, store) for case in cases if played[case]["problems"]]
    assert not bad, f"{len(bad)} of {len(cases)} cases differ:\n" + "\n".join(bad)
    return played
