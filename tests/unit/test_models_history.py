"""A long conversation stays within its bound: pairs are whole, declared facts are there, a replay leaves out the same."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))

from model_desk import ANSWER, Desk, effects, of_kind
from tightship.core import kinds
from tightship.core.errors import LimitReached
from tightship.models import Conversation, Message, ToolCall
from tightship.models.history import History, HistoryPolicy, fit_inputs, tokens_of, units

SYSTEM, TASK = Message.system("Sort tickets. Objective: help. Constraint: no promises."), Message.user("order O-1")


def round_of(number: int, answers: Sequence[tuple[str, int]]) -> list[Message]:
    """A reply with tool calls, and what each of them gave."""
    calls = [ToolCall(f"c{number}-{n}", "orders.get", {"n": number}) for n in range(len(answers))]
    told = [
        Message.tool(call, {"order": {"id": id_}, "text": "x" * size})
        for call, (id_, size) in zip(calls, answers, strict=True)
    ]
    return [Message.assistant("", calls), *told]


ANSWERS = st.lists(st.tuples(st.sampled_from(["O-1", "O-22", "O-333"]), st.integers(0, 3000)), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=25), st.integers(700, 4000), st.sampled_from(["drop", "summarise"]))
def test_the_bound_holds_pairs_are_whole_and_facts_are_there(
    rounds: list[list[tuple[str, int]]], tokens: int, compact: Any
) -> None:
    history, again = (History(HistoryPolicy(tokens, ("order.id",), compact)) for _ in range(2))
    talk = other = Conversation.of([SYSTEM, TASK])
    for number, answers in enumerate(rounds):
        said = round_of(number, answers)
        (talk, left_out), (other, _) = history.fit(talk.extend(said)), again.fit(other.extend(said))
        sent = talk.messages()
        assert tokens_of(sent) <= tokens
        assert sent[:2] == [SYSTEM, TASK]
        asked = [call.id for message in sent for call in message.calls]
        assert [message.call_id for message in sent if message.role == "tool"] == asked
        assert [call.id for message in sent for call in message.calls][-len(answers) :] == [
            f"c{number}-{n}" for n in range(len(answers))
        ]
        assert answers[-1][0] in "".join(message.content for message in sent)
        assert talk.digest == other.digest
        if left_out is not None:
            assert left_out.after == tokens_of(sent) <= tokens < left_out.before


def test_what_is_cut_is_rare_so_the_ledger_grows_with_what_is_said() -> None:
    """The messages that all requests add to the ledger: those that are new, and those that follow a cut."""

    def stored(rounds: int) -> int:
        history, talk, count = History(HistoryPolicy(2000, ("order.id",))), Conversation.of([SYSTEM, TASK]), 2
        for number in range(rounds):
            said = round_of(number, [("O-1", 200)])
            talk, left_out = history.fit(talk.extend(said))
            count += len(said) if left_out is None else len(talk)
        return count

    assert stored(800) <= 2.2 * stored(400)
    assert stored(400) <= 2 * 2 * 400


def test_an_outline_says_what_was_left_out() -> None:
    history = History(HistoryPolicy(900, (), "summarise"))
    talk = Conversation.of([SYSTEM, TASK])
    for number in range(12):
        talk, _ = history.fit(talk.extend(round_of(number, [("O-1", 300)])))
    recap = talk.messages()[2]
    assert recap.role == "user" and "orders.get" in recap.content and tokens_of(talk.messages()) <= 900


def test_what_may_not_be_left_out_and_does_not_fit_is_said() -> None:
    with pytest.raises(LimitReached, match="does not fit into 500 tokens"):
        History(HistoryPolicy(500)).fit(Conversation.of([Message.system("x" * 4000), TASK]))


@given(st.dictionaries(st.sampled_from("abcd"), st.text(max_size=2000)), st.text(max_size=300))
def test_inputs_are_shortened_but_never_the_facts(given_: dict[str, str], fact: str) -> None:
    fitted = fit_inputs({**given_, "order": fact}, ("order",), 800)
    assert fitted["order"] == fact
    assert len(orjson.dumps(fitted)) <= 800 * 3
    with pytest.raises(LimitReached, match="inputs do not fit"):
        fit_inputs({"order": "x" * 3000}, ("order",), 800)


def test_units_begin_with_what_the_model_said() -> None:
    first, second = round_of(1, [("O-1", 1), ("O-2", 1)]), round_of(2, [("O-3", 1)])
    assert units([*first, *second]) == [first, second]


GET = [("orders.get", {"order_id": "O-1"})]


async def test_a_long_turn_is_cut_noted_and_replayed_exactly(tmp_path: Path) -> None:
    script = [*([("orders.get", {"order_id": f"O-{n}" + "9" * 400})] for n in range(12)), ANSWER]
    bound = {"tokens": 1200, "keep": ["ticket", "order_id"]}
    desk = Desk(tmp_path, script, history=bound)
    run = await desk.run("Where is O-1?")
    assert run.output == ANSWER
    notes = [entry.body for entry in of_kind(run, kinds.NOTE) if entry.body["type"] == "history.compacted"]
    assert notes and all(note["after"] <= 1200 < note["before"] and note["dropped"] for note in notes)
    for request in desk.requests:
        sent = request.conversation.messages()
        assert tokens_of(sent) <= 1200 and sent[0].role == "system" and "Where is O-1?" in sent[1].content
    assert any("order_id = " in text for _, text in desk.said())
    assert len([key for key in effects(run) if "/model/" in key]) == 13
