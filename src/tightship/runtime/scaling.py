"""How many workers the load asks for (S3): up quickly, down slowly, unmoved by noise.

The policy is that of the Kubernetes HorizontalPodAutoscaler, with its defaults where it has them: the ratio of what is
measured to what is wished, a tolerance around 1 in which nothing is done, the highest proposal of several measures,
at most a doubling or four more in 15 s upwards, and downwards the highest proposal of the last five minutes
(https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/, "Algorithm details" and "Configurable
scaling behavior"). Downwards it is slower than there: a quarter in 15 s, where Kubernetes lets all go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from tightship.core.errors import InputRejected

SYNC: Final = 15.0
"""Seconds in which the number may move one step (the HPA's period of its default policies)."""


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do now.

    Attributes:
        due: runs that are due and that nobody drives.
        running: runs that a worker drives.
        oldest: seconds for which the oldest due run has waited, 0 where none is due.
    """

    due: int = 0
    running: int = 0
    oldest: float = 0.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """At least and at most so many workers.

    Raises:
        InputRejected: there are no such numbers.
    """

    least: int = 1
    most: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise InputRejected(
                f"{self.least} to {self.most} workers is no range", fix="give --min and --max, the first not above"
            )

    def hold(self, workers: int) -> int:
        """The number within the bounds that is nearest."""
        return min(max(workers, self.least), self.most)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is wished of the workers.

    Attributes:
        runs: runs for each worker, due and running; half of what it drives at once leaves room for a peak.
        patience: seconds that a due run may wait before its waiting counts as a lack of workers.
        tolerance: share by which the load may differ from what the workers are wished to have before anything is done.
        window: seconds whose highest proposal counts downwards (stabilisation).
    """

    runs: int = 32
    patience: float = 5.0
    tolerance: float = 0.1
    window: float = 300.0

    @classmethod
    def of(cls, concurrency: int) -> Policy:
        """The policy for workers that drive so many runs at once."""
        return cls(runs=max(concurrency // 2, 1))


@dataclass(frozen=True, slots=True)
class Past:
    """What the policy remembers from one decision to the next: (time, proposal), and (time, workers before)."""

    proposed: tuple[tuple[float, int], ...] = field(default=())
    moved: tuple[tuple[float, int], ...] = field(default=())


_NO_PAST: Final = Past()
_DEFAULT: Final = Policy()


def desired(
    now: float, current: int, load: Load, bounds: Bounds, past: Past = _NO_PAST, policy: Policy = _DEFAULT
) -> tuple[int, Past]:
    """How many workers there should be.

    Args:
        now: seconds on a clock that never goes back.
        current: workers that there are, those that are stopping left out.
        load: what there is to do.
        bounds: what is allowed.
        past: what the decision before has given; its first one has none.
        policy: what is wished.

    Returns: the number, and what the next decision is to be given.
    """
    proposal = bounds.hold(propose(current, load, policy))
    known = past.proposed or ((now, current),)  # a crew that was just started is not shrunk at once
    proposed = (*((at, one) for at, one in known if at > now - policy.window), (now, proposal))
    moved = tuple((at, before) for at, before in past.moved if at > now - SYNC)
    if proposal > current:
        lowest = min([current, *(before for _, before in moved)])
        wanted = min(proposal, max(current, lowest * 2, lowest + 4))
    else:
        highest = max([current, *(before for _, before in moved)])
        steady = min(current, max(one for _, one in proposed))
        wanted = max(steady, min(current, highest - max(1, highest // 4)))
    wanted = bounds.hold(wanted)
    if wanted != current:
        moved = (*moved, (now, current))
    return wanted, Past(proposed, moved)


def propose(current: int, load: Load, policy: Policy = _DEFAULT) -> int:
    """The number that fits this load alone, without bounds and past: the highest of what two measures ask for.

    The first is runs for each worker. The second is how long the oldest due run has waited; it asks for no more
    workers than there are runs, since a run that no worker here can take (it was started by other code) waits for ever.
    """
    runs = load.due + load.running
    by_runs = _fitting(current, runs / policy.runs, policy.tolerance)
    if not load.due:
        return by_runs
    by_age = _fitting(current, current * load.oldest / policy.patience, policy.tolerance)
    return max(by_runs, min(by_age, runs), 1)


def _fitting(current: int, exact: float, tolerance: float) -> int:
    """`ceil(current * measured / wished)`, or `current` where the ratio is within the tolerance of 1."""
    if abs(exact - current) <= tolerance * current:
        return current
    return math.ceil(exact - 1e-9)
