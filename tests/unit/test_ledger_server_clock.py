"""Store time: as near as the server's answers allow, whatever the machine's clock says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightship.core.world import SystemClock
from tightship.ledger.server_clock import DRIFT, ServerClock


class Machine(SystemClock):
    """A machine whose clock is wrong and is set now and then; its monotonic one only goes on."""

    def __init__(self, wrong: float) -> None:
        self.wrong, self.time = wrong, 50.0

    def now(self) -> float:  # type: ignore[override]
        return 1e9 + self.time + self.wrong

    def monotonic(self) -> float:  # type: ignore[override]
        return self.time


wrong = st.floats(-1e6, 1e6)
ways = st.floats(0, 5)
answers = st.lists(st.tuples(ways, ways, st.floats(0, 1000), wrong), min_size=1, max_size=20)
"""There and back (s), how long after it the next is asked (s), and to what the machine's clock is set meanwhile."""


@given(wrong, answers)
def test_it_is_never_further_off_than_half_the_shortest_round_trip_and_what_clocks_drift(
    at_first: float, trips: list[tuple[float, float, float, float]]
) -> None:
    machine = Machine(at_first)
    clock = ServerClock(machine)
    assert clock.now() == machine.now(), "nobody has told it anything yet"
    best = float("inf")
    for there, back, pause, then in trips:
        sent = machine.time
        machine.time += there
        now = 1e9 + machine.time
        machine.time += back
        clock.hear(now, sent, machine.time)
        best = min(best + (there + back + pause) * DRIFT, (there + back) / 2)
        assert abs(clock.now() - (1e9 + machine.time)) <= best + 1e-3
        machine.wrong = then
        machine.time += pause
        best += pause * DRIFT
        assert abs(clock.now() - (1e9 + machine.time)) <= best + 1e-3
        assert abs(clock.skew + machine.wrong) <= best + 2e-3


def test_a_server_whose_clock_was_set_is_followed() -> None:
    machine = Machine(0)
    clock = ServerClock(machine)
    clock.hear(1e9, 50.0, 50.01)
    clock.hear(1e9 + 600, 50.0, 50.01)
    assert abs(clock.now() - (1e9 + 600)) < 0.02
    over = ServerClock.over(clock)
    assert over.now() == machine.now()
