"""Loops in messages: cycles of any length, near-repeats, standstill; and no alarm where work goes on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from benchmarks.loops import RIDGE, figures, fit_logistic, interval, read_logs
from hypothesis import given
from hypothesis import strategies as st

from tightship import detect_loops
from tightship.controls.loop_signs import SIGNS, Memory
from tightship.controls.loop_verdicts import LoopModel, LoopWatch, shipped_model
from tightship.core.errors import InputRejected

TASK = {"role": "human", "content": "Find out in which year the bridge over the Tay was opened, and by whom."}


def log(*lines: tuple[str, str]) -> list[dict[str, str]]:
    return [TASK, *({"role": role, "content": content} for role, content in lines)]


def kinds_of(messages: list[dict[str, str]]) -> set[str]:
    return {verdict.kind for verdict in detect_loops(messages) if verdict.looping}


# --- what is a loop -----------------------------------------------------------------------------------


def test_the_same_message_three_times_in_a_row_is_a_repeat() -> None:
    verdicts = detect_loops(log(*[("clerk", "I open the archive.")] * 3))
    assert [one.looping for one in verdicts] == [False, False, False, True]
    assert (verdicts[3].kind, verdicts[3].period, verdicts[3].score) == ("repeat", 1, 0.875)


def test_two_agents_that_send_each_other_back_and_forth_play_ping_pong() -> None:
    verdicts = detect_loops(log(*[("planner", "Ask the checker."), ("checker", "Ask the planner.")] * 3))
    assert (verdicts[-1].looping, verdicts[-1].kind, verdicts[-1].period) == (True, "ping_pong", 2)
    assert "planner and checker" in verdicts[-1].reason


@given(period=st.integers(3, 40), before=st.integers(0, 9))
def test_a_cycle_of_any_length_is_found_where_it_closes_the_third_time(period: int, before: int) -> None:
    def entry(speaker: str, number: int) -> tuple[str, str]:
        chance = random.Random(f"{speaker}{number}")
        return f"{speaker}{number % 4}", " ".join(f"{chance.getrandbits(60):x}" for _ in range(6))

    circle = [entry("agent", number) for number in range(period)]
    verdicts = detect_loops(log(*[entry("early", number) for number in range(before)], *circle * 3))
    cycles = [one.position for one in verdicts if one.kind == "cycle" and one.period == period]
    assert cycles
    assert cycles[0] <= before + 3 * period
    assert all(one.kind != "cycle" for one in verdicts[: before + 2 * period])


def test_what_differs_only_in_time_and_random_ids_is_the_same() -> None:
    said = [
        f"2026-03-0{day}T10:00:0{day}Z request {day * 11111111:08x}-aaaa-bbbb-cccc-0123456789ab: refused"
        for day in (1, 2, 3)
    ]
    assert kinds_of(log(*[("system", one) for one in said])) == {"repeat"}


def test_nearly_the_same_words_are_the_same() -> None:
    long = "I will now look through all pages of the archive of the harbour office for the date of the opening of the bridge"
    assert kinds_of(log(("a", long), ("a", long + " again"), ("a", long + "!"))) == {"repeat"}


def test_instructions_reworded_without_anything_new_are_a_standstill() -> None:
    ways = ["specific", "official", "reliable", "alternative", "comprehensive", "detailed", "credible"]
    lines: list[tuple[str, str]] = []
    for way in ways:
        lines.append(("boss (-> surfer)", f"Please find a {way} page with the opening year of the bridge."))
        lines.append(("surfer", "I scrolled down one page in the browser.\nThe page shows the bridge and the archive."))
    verdicts = detect_loops(log(*lines))
    assert verdicts[-1].looping
    assert not verdicts[2].looping


# --- what is none -------------------------------------------------------------------------------------


def test_the_same_step_for_each_item_is_no_loop() -> None:
    lines: list[tuple[str, str]] = []
    for number in range(40):
        lines.append(("assistant", f"calling lookup_invoice for invoice {1000 + number}"))
        lines.append(("tool", f"invoice {1000 + number}: amount {37 * number % 911}.{number:02d}, status open"))
    assert kinds_of(log(*lines)) == set()
    told = [
        line
        for number in range(40)
        for line in (
            ("boss (-> clerk)", f"Check invoice {1000 + number}"),
            (
                "clerk",
                f"invoice {1000 + number}: amount {37 * number % 911}.{number:02d}, customer C-{number * 7}, open",
            ),
        )
    ]
    assert kinds_of(log(*told)) == set()


def test_a_log_of_a_few_different_steps_is_no_loop() -> None:
    assert (
        kinds_of(
            log(
                ("boss (-> clerk)", "Open the archive of the harbour."),
                ("clerk", "Traceback (most recent call last): the archive could not be opened"),
                ("boss (-> surfer)", "Look into the town's chronicle."),
                ("surfer", "It names the year 1887 and the engineer."),
            )
        )
        == set()
    )


def test_asking_again_is_no_loop_as_long_as_the_answer_changes() -> None:
    def polled(answers: list[str]) -> list[dict[str, str]]:
        return log(*[line for one in answers for line in (("assistant", "get_status(job=7)"), ("tool", one))])

    assert kinds_of(polled([f"job 7: {done * 5} percent, {done * 311} rows written" for done in range(20)])) == set()
    assert "ping_pong" in kinds_of(polled(["job 7 is queued"] * 20))


def test_a_conversation_that_gets_somewhere_is_no_loop() -> None:
    assert (
        kinds_of(
            log(
                ("assistant", "I look at flights from Berlin first."),
                ("tool", "LH123 08:10 240 EUR; AZ99 12:00 180 EUR"),
                ("assistant", "The cheaper one leaves at noon. Next: hotels near Trastevere."),
                ("tool", "Hotel Santa Maria 210 EUR with breakfast; Casa Kolbe 140 EUR with a garden"),
                ("assistant", "Casa Kolbe is good for children. Now museums that open on Mondays."),
                ("tool", "Explora is closed on Mondays; the Capitoline Museums open daily"),
                ("assistant", "Capitoline on Monday, Explora on Tuesday. The plan is ready."),
            )
        )
        == set()
    )


# --- how it judges ------------------------------------------------------------------------------------

MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["human", "boss (-> a)", "a", "b", "boss (thought)", "boss (-> b)"]),
            "content": st.text("ab 1.\n", max_size=30) | st.none(),
        }
    ),
    max_size=30,
)


@given(MESSAGES, st.data())
def test_a_verdict_rests_on_the_messages_up_to_its_own(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    whole = detect_loops(messages)
    cut = data.draw(st.integers(0, len(messages)))
    assert detect_loops(messages[:cut]) == whole[:cut]
    assert [one.position for one in whole] == list(range(len(messages)))
    assert all(0 <= one.score <= 1 and one.looping == (one.score >= shipped_model().threshold) for one in whole)


def test_what_an_orchestrator_says_to_itself_about_loops_changes_nothing() -> None:
    lines = [
        ("boss (-> a)", "Open the page."),
        ("a", "I opened it."),
        ("boss (-> a)", "Read it."),
        ("a", "It is empty."),
    ]
    quiet = detect_loops(log(*lines))
    thought = [("boss (thought)", '{"is_in_loop": {"answer": true, "reason": "we repeat ourselves"}}')]
    loud = detect_loops(log(*lines[:2], *thought, *lines[2:], *thought))
    assert [one.score for one in quiet] == [one.score for one in loud if one.position not in (3, 6)]


def test_a_plan_made_anew_begins_a_new_attempt() -> None:
    stuck = [line for _ in range(4) for line in (("boss (-> a)", "Look again."), ("a", "I looked, and saw nothing."))]
    plan = ("boss (thought)", f"New plan. We work on this: {TASK['content']} We ask the harbour office instead.")
    verdicts = detect_loops(log(*stuck, plan))
    assert verdicts[-2].score > verdicts[-1].score


@pytest.mark.parametrize(
    ("message", "said"),
    [("hello", "no message"), ({"content": "x"}, "no role"), ({"role": "a", "content": 7}, "no text")],
)
def test_what_is_no_message_is_refused_with_its_place(message: Any, said: str) -> None:
    with pytest.raises(InputRejected, match=said) as refused:
        detect_loops([TASK, message])
    assert refused.value.where == "message 1"


def test_parts_of_a_message_are_read_as_its_text() -> None:
    parts: Any = [{"type": "text", "text": "I open the archive."}, {"type": "image", "image": "…"}]
    assert kinds_of([TASK, *[{"role": "a", "content": parts}] * 3]) == {"repeat"}


def test_memory_is_bounded_however_long_a_run_is() -> None:
    memory = Memory(3)
    for word in "abcad":
        memory.add(word)
    assert [word for word in "abcd" if word in memory] == ["b", "c", "d"]
    watch = LoopWatch()
    for number in range(2000):
        watch.read({"role": f"agent{number}", "content": f"{number}"})
    assert len(watch._cycles._texts) <= 192


def test_a_model_that_is_none_is_refused() -> None:
    part = {"intercept": 0.0, "weights": {"charm": 1.0}}
    with pytest.raises(InputRejected, match="no model"):
        LoopModel.read({"anew": part, "loop": part, "threshold": 0.5})
    with pytest.raises(InputRejected, match="no model"):
        LoopModel.read({})


# --- the benchmark ------------------------------------------------------------------------------------


def test_the_shipped_model_says_how_it_was_made() -> None:
    path = Path(__file__).parents[2] / "src/tightship/controls/loop_model.json"
    record = json.loads(path.read_text())["record"]
    assert set(shipped_model().loop.weights) == set(SIGNS)
    assert record["made_by"].startswith("python -m benchmarks.loops")
    assert record["left_out"]["f1"] >= 0.6


def test_labels_are_hidden_from_the_detector_and_stand_for_the_message_before_them(tmp_path: Path) -> None:
    def ledger(loop: bool) -> str:
        return "Updated Ledger:\n" + json.dumps({"is_in_loop": {"answer": loop, "reason": "so"}})

    history = [
        TASK,
        {"role": "boss (thought)", "content": ledger(False)},
        {"role": "boss (-> a)", "content": "Look."},
        {"role": "a", "content": "Nothing."},
        {"role": "boss (thought)", "content": ledger(True)},
        {"role": "boss (thought)", "content": "New plan: look elsewhere"},
        {"role": "boss (thought)", "content": ledger(False)},
        {"role": "boss (-> a)", "content": "Look elsewhere."},
        {"role": "a", "content": "Something."},
    ]
    (tmp_path / "1.json").write_text(json.dumps({"history": history}))
    (found,) = read_logs(tmp_path)
    assert [one.text for one in found.messages] == [
        TASK["content"],
        "Look.",
        "Nothing.",
        "Look elsewhere.",
        "Something.",
    ]
    assert found.labels == ((0, False), (2, True), (2, False))
    assert found.taught == ((0, False), (2, True))
    assert found.anew == frozenset({4})


def test_the_fit_finds_the_slope_that_made_the_data() -> None:
    chance = random.Random(1)
    rows = [[chance.gauss(0, 1), chance.gauss(5, 3)] for _ in range(2000)]
    truth = [chance.random() < 1 / (1 + 2.718281828 ** -(1 + 2 * row[0])) for row in rows]
    model = fit_logistic(["slope", "noise"], rows, truth)
    assert RIDGE == 1.0
    assert model.weights["slope"] == pytest.approx(2, abs=0.25)
    assert model.weights["noise"] == pytest.approx(0, abs=0.1)
    assert model.intercept == pytest.approx(1, abs=0.4)


def test_figures_are_precision_recall_and_f1() -> None:
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    assert figures(pairs) == (0.5, 0.5, 0.5)
    assert interval([pairs, pairs]) == (0.5, 0.5)
