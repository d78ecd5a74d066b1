"""Counters that neither a replay nor a handoff resets, and loops found in the turn in which they close."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from entry_samples import Log, VirtualClock
from hypothesis import given
from hypothesis import strategies as st

from tightship.controls import Limits, LoopDetector, LoopLimits, RunLimits, Stopwatch
from tightship.controls.limits import Handoffs, Messages
from tightship.core import kinds
from tightship.core.errors import LimitReached, LoopFound
from tightship.core.ports import WORKFLOW
from tightship.core.signals import OverBudget


@pytest.mark.parametrize("what", ["turn", "call"])
def test_the_last_one_within_the_limit_passes_and_the_next_names_limit_and_fix(what: str) -> None:
    limits = RunLimits(Limits(turns=3, calls=3))
    count = getattr(limits, f"count_{what}")
    for number in range(3):
        count(f"k/{number}")
    with pytest.raises(LimitReached, match=rf"this run has used up its 3 .*{what}s") as reached:
        count("k/3")
    assert f"limits.{what}s" in (reached.value.fix or "")


def test_a_key_counts_once_however_often_it_is_replayed() -> None:
    limits = RunLimits(Limits(turns=1, calls=1))
    for _ in range(5):
        limits.count_turn("a")
        limits.count_call("a/tool/1")
        limits.count_repeat("a/tool/1", "a", "orders.get", "h")
    assert limits.as_dict() == {"turns": 1, "calls": 1, "retries": 0, "repeats": 1}


def test_a_turn_that_was_refused_was_not_taken() -> None:
    live, restored, log = RunLimits(Limits(turns=1)), RunLimits(Limits(turns=1)), Log()
    live.count_turn("a")
    with pytest.raises(LimitReached):
        live.count_turn("b")
    log.add(kinds.TURN, "b", agent="b", denied=True)
    restored.restore(log.entries)
    restored.count_turn("a")
    assert live.as_dict() == restored.as_dict()


def test_an_agent_may_ask_the_same_only_so_often() -> None:
    limits = RunLimits(Limits(repeats=2))
    log = Log()
    log.add(kinds.SETTLED, "a/tool/1", agent="a", name="orders.get", cls="read", args="h", attempt=1)
    limits.restore(log.entries)
    limits.count_repeat("a/tool/1", "a", "orders.get", "h")
    limits.count_repeat("a/tool/2", "a", "orders.get", "h")
    for agent, tool, digest in (("b", "orders.get", "h"), ("a", "orders.list", "h"), ("a", "orders.get", "i")):
        limits.count_repeat("a/tool/3", agent, tool, digest)
    with pytest.raises(LimitReached, match=r"a has asked orders\.get for the same 2 times already"):
        limits.count_repeat("a/tool/4", "a", "orders.get", "h")


def test_what_got_no_answer_is_retried_and_not_repeated() -> None:
    """Live and restored alike: a declared retry of 3 must not end on the limit of 3 repeats."""
    live, restored, log = RunLimits(Limits(repeats=2)), RunLimits(Limits(repeats=2)), Log()
    for number in range(1, 6):
        key = f"a/tool/{number}"
        live.count_repeat(key, "a", "orders.get", "h")
        live.unanswered(key)
        error = {"error": "TimedOut", "kind": "unavailable"}
        log.add(kinds.SETTLED, key, agent="a", name="orders.get", cls="read", args="h", error=error)
    restored.restore(log.entries)
    for limits in (live, restored):
        limits.count_repeat("a/tool/6", "a", "orders.get", "h")
        limits.count_repeat("a/tool/7", "a", "orders.get", "h")
        with pytest.raises(LimitReached):
            limits.count_repeat("a/tool/8", "a", "orders.get", "h")


def test_a_step_that_is_tried_again_may_ask_for_the_same_again() -> None:
    limits = RunLimits(Limits(repeats=1))
    for turn in ("s/a", "s/a~2", "s~2/a", "s~2/a~2"):
        limits.count_repeat(f"{turn}/tool/1", "a", "orders.get", "h")
    with pytest.raises(LimitReached):
        limits.count_repeat("s/a~2/tool/2", "a", "orders.get", "h")


def test_a_read_may_be_polled_as_long_as_its_answer_is_new() -> None:
    """Live and restored alike; an answer that was given before is none, and a write is never polled."""
    live, restored, log = RunLimits(Limits(repeats=2)), RunLimits(Limits(repeats=2)), Log()
    for number in range(1, 9):
        key = f"a/tool/{number}"
        live.count_repeat(key, "a", "job.status", "h")
        live.answered(key, f"out {number}")
        log.add(kinds.SETTLED, key, agent="a", name="job.status", cls="read", args="h", out=f"out {number}")
    restored.restore(log.entries)
    for limits in (live, restored):
        limits.count_repeat("a/tool/9", "a", "job.status", "h")
        limits.answered("a/tool/9", "out 1")
        with pytest.raises(LoopFound, match="the same 2 times already"):
            limits.count_repeat("a/tool/10", "a", "job.status", "h")
    written, log = RunLimits(Limits(repeats=2)), Log()
    for number in range(2):
        log.add(kinds.SETTLED, f"a/tool/{number}", agent="a", name="mail.send", cls="write", args="h", out=f"{number}")
    written.restore(log.entries)
    with pytest.raises(LoopFound):
        written.count_repeat("a/tool/2", "a", "mail.send", "h")


def test_what_the_workflow_itself_does_is_bounded_by_its_text() -> None:
    limits = RunLimits(Limits(repeats=1))
    for number in range(5):
        limits.count_repeat(f"each/{number}/notify/1", WORKFLOW, "mail.send", "h")


def test_handoffs_are_counted_for_a_run_and_all_below_it_whatever_is_told_again() -> None:
    log = Log()
    log.add(kinds.NOTE, "a/handoff", type="handoff")
    log.add(kinds.NOTE, "a/handoff", type="handoff")
    log.add(kinds.SIGNAL, "", type="child", child="r-2", handoffs=["h-1", "h-2"])
    log.add(kinds.SIGNAL, "", type="child", child="r-3", handoffs=["h-2"])
    counter = Handoffs("r-1", 3)
    counter.restore(log.entries)
    assert len(counter.counted) == 3
    counter.check("h-1")
    with pytest.raises(LimitReached, match="passed 3 times in run r-1"):
        counter.check("h-3")


@given(st.lists(st.tuples(st.sampled_from(["r-1", "r-2", "r-3"]), st.integers(0, 5)), max_size=20), st.integers(0, 30))
def test_messages_are_counted_once_however_often_and_in_whatever_order_they_are_told(told: Any, most: int) -> None:
    counter, again = Messages("r-1", most), Messages("r-1", most)
    seen = dict[str, int]()
    for run, messages in told:
        counter.count(run, messages)
        seen[run] = seen.get(run, 0) + messages
        again.hear(seen)
        again.hear({run: messages})  # an older word of the same run
        assert again.sent == {run: sent for run, sent in seen.items() if sent}
    assert counter.sent == again.sent and counter.left == max(0, most - sum(seen.values()))


def test_one_retry_budget_holds_for_all_layers() -> None:
    limits = RunLimits(Limits(retries=2), scope="agent:triage")
    limits.count_retry("a/tool/1", 1)
    limits.count_retry("a/tool/1", 2)
    limits.count_retry("a", 2)
    limits.count_retry("a", 2)
    with pytest.raises(LimitReached, match="agent:triage has used up its 2 retries"):
        limits.count_retry("b/model/1", 2)


def test_a_resumed_run_goes_on_with_its_counts() -> None:
    log = Log()
    log.add(kinds.ADMITTED, "a/tool/1", agent="a", name="orders.get", cls="write", args="h")
    log.add(kinds.SETTLED, "a/tool/1", attempt=3)
    log.add(kinds.TURN, "a", agent="a", hash="h")
    log.add(kinds.NOTE, "b", type="checkpoint.failed")
    limits = RunLimits(Limits(turns=1))
    limits.restore(log.entries)
    assert limits.as_dict() == {"turns": 1, "calls": 1, "retries": 2, "repeats": 1}
    limits.count_turn("a")
    with pytest.raises(LimitReached):
        limits.count_turn("b")


def test_parked_time_is_not_worked_time() -> None:
    clock = VirtualClock()
    watch = Stopwatch(clock, 10.0, used=2.0)
    watch.start()
    clock.time += 5
    watch.stop()
    clock.time += 1000
    watch.check()
    assert (watch.used, watch.left) == (7.0, 3.0)
    watch.start()
    clock.time += 3
    with pytest.raises(OverBudget) as over:
        watch.check()
    assert (over.value.scope, over.value.unit) == ("run", "seconds")
    watch.extend(60)
    watch.check()
    free = Stopwatch(clock, None)
    free.start()
    clock.time += 1e9
    free.check()
    assert free.left is None


def play(detector: LoopDetector, states: str, line: str = "", start: int = 0) -> int | None:
    """Feed one state per letter; the position of the turn that was refused, or None."""
    for at, letter in enumerate(states):
        try:
            detector.turn(f"{line}/{start + at}", letter.upper(), f"hash-{letter}", line)
        except LimitReached:
            return at
    return None


def test_the_same_state_is_stopped_at_the_declared_number() -> None:
    detector = LoopDetector(LoopLimits(repeats=4, cycles=99))
    assert play(detector, "axbaycazd") is None
    with pytest.raises(LimitReached, match="A was given the same input 4 times"):
        detector.turn("last", "A", "hash-a")


@pytest.mark.parametrize(("states", "refused_at"), [("ababab", 5), ("xabcabcabc", 9), ("abacabacabac", 11)])
def test_a_cycle_of_any_length_is_stopped_when_it_closes_the_third_time(states: str, refused_at: int) -> None:
    assert play(LoopDetector(LoopLimits(repeats=99)), states) == refused_at


def test_the_refusal_names_the_circle() -> None:
    detector = LoopDetector()
    play(detector, "abcabcab")
    with pytest.raises(LimitReached, match="A -> B -> C -> A, 3 times over") as found:
        detector.turn("last", "C", "hash-c")
    assert "limits" in (found.value.fix or "")


def test_other_inputs_are_no_loop() -> None:
    detector = LoopDetector()
    for number in range(100):
        detector.turn(f"maker/{number}", "maker", f"draft-{number}")
        detector.turn(f"checker/{number}", "checker", f"draft-{number}")


def test_new_information_starts_the_count_anew_and_known_information_does_not() -> None:
    detector = LoopDetector(LoopLimits(repeats=3))
    assert play(detector, "aa") is None
    detector.news("address-1")
    assert play(detector, "aa", start=10) is None
    detector.news("address-1")
    assert play(detector, "a", start=20) == 0


def test_branches_side_by_side_are_no_loop_and_what_they_learn_their_parent_knows() -> None:
    detector = LoopDetector(LoopLimits(repeats=2))
    for branch in range(10):
        assert play(detector, "a", line=f"each/{branch}") is None
    assert play(detector, "b") is None
    detector.news("address-1", line="each/3")
    assert play(detector, "b", start=10) is None
    assert play(detector, "b", start=20) == 0


def test_a_ping_pong_is_stopped_and_a_third_party_ends_it() -> None:
    detector = LoopDetector(LoopLimits(bounces=4))
    route = ["a", "b", "a", "b", "c", "b", "a", "b", "a"]
    for number, (source, target) in enumerate(pairwise(route)):
        detector.handoff(str(number), source, target)
    with pytest.raises(LimitReached, match=r"a and b hand the work back and forth \(4 times in a row\)"):
        detector.handoff("last", "a", "b")


def test_replayed_turns_and_handoffs_count_nothing() -> None:
    detector = LoopDetector(LoopLimits(repeats=2, bounces=2))
    for _ in range(5):
        detector.turn("k", "A", "h")
        detector.handoff("h", "A", "B")


def reference(states: list[str], limits: LoopLimits) -> int | None:
    """The definition, by looking at everything."""
    for end in range(1, len(states) + 1):
        seen = states[:end]
        if seen.count(seen[-1]) >= limits.repeats:
            return end - 1
        for period in range(2, end // limits.cycles + 1):
            tail = seen[-period * limits.cycles :]
            if all(tail[at] == tail[at - period] for at in range(period, len(tail))):
                return end - 1
    return None


@given(st.text("abcd", max_size=40), st.integers(2, 8), st.integers(2, 4))
def test_the_incremental_detector_finds_what_the_definition_says(states: str, repeats: int, cycles: int) -> None:
    limits = LoopLimits(repeats=repeats, cycles=cycles)
    assert play(LoopDetector(limits), states) == reference(list(states), limits)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "p", "q", "r"])), max_size=25), st.integers(0, 25)
)
def test_a_run_resumed_anywhere_finds_the_loop_where_the_first_run_found_it(
    turns: list[tuple[str, str | None]], cut: int
) -> None:
    def go(detector: LoopDetector, log: Log | None, start: int) -> int | None:
        for at, (letter, read) in enumerate(turns[start:], start):
            try:
                detector.turn(f"s/{at}", letter, letter)
            except LimitReached:
                return at
            if read:
                detector.news(read)
            if log is not None:
                if read:
                    log.add(kinds.SETTLED, f"s/{at}/tool/1", cls="read", out=read)
                log.add(kinds.TURN, f"s/{at}", agent=letter, hash=letter)
        return None

    log = Log()
    whole = go(LoopDetector(), log, 0)
    before = [entry for entry in log.entries if int(entry.key.split("/")[1]) < cut]
    resumed = LoopDetector()
    resumed.restore(before)
    done = len([entry for entry in before if entry.kind == kinds.TURN])
    assert go(resumed, None, done) == whole
