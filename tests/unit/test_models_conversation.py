"""Conversations share their past, cost O(1) to grow, and come back from JSON as they were."""

from __future__ import annotations

import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.core.ports import FREE, ToolSpec, Usage
from tightship.models import Conversation, Message, ModelReply, ModelRequest, ModelSettings, Thinking, ToolCall
from tightship.models.testing import ScriptedModel

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(st.text(max_size=5), json_values, max_size=3)
calls = st.builds(ToolCall, st.text(max_size=5), st.text(max_size=5), objects) | st.builds(
    ToolCall, st.text(max_size=5), st.text(max_size=5), st.none(), st.text(min_size=1, max_size=5)
)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.text(max_size=20),
    st.lists(calls, max_size=3).map(tuple),
    st.none() | st.text(max_size=5),
    st.none() | st.text(max_size=5),
    st.lists(st.builds(Thinking, st.text(max_size=5), objects), max_size=2).map(tuple),
)


@given(messages)
def test_a_message_comes_back_from_json_as_it_was(message: Message) -> None:
    assert Message.from_json(orjson.loads(orjson.dumps(message.as_json()))) == message


@pytest.mark.parametrize(
    "raw", [{}, {"role": "nobody"}, {"role": "user", "content": 3}, {"role": "assistant", "calls": [{}]}]
)
def test_what_is_no_message_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Message.from_json(raw)


@given(st.lists(messages, max_size=6), messages, messages)
def test_growing_changes_nothing_that_was_there(said: list[Message], one: Message, other: Message) -> None:
    base = Conversation.of(said)
    before = base.digest
    left, right = base.append(one), base.append(other)
    assert base.messages() == said and len(base) == len(said) and base.digest == before
    assert left.messages() == [*said, one] and right.messages() == [*said, other]
    assert left.parent is right.parent is base
    assert (left.digest == right.digest) == (one == other)
    assert list(left) == left.messages()


@given(st.lists(messages, max_size=6), st.lists(messages, max_size=6))
def test_the_digest_is_the_content(first: list[Message], second: list[Message]) -> None:
    assert (Conversation.of(first).digest == Conversation.of(second).digest) == (first == second)


def test_a_long_conversation_grows_without_copying_and_ends_without_recursion() -> None:
    said = Conversation()
    first = said.append(Message.user("0"))
    said = first
    sizes: list[int] = []
    for n in range(1, 20_000):
        said = said.append(Message.user(str(n)))
        sizes.append(sys.getsizeof(said))
    assert len(set(sizes)) == 1
    assert len(said) == 20_000 and said.digest
    assert said.messages()[0] is first.message
    del said


def test_a_conversation_keeps_the_very_node_that_it_grew_from() -> None:
    first = Conversation().append(Message.user("a"))
    second = first.append(Message.user("b"))
    assert second.parent is first
    assert list(second.nodes()) == [second, first]
    assert not Conversation() and second


def test_a_request_is_the_same_when_everything_that_decides_the_answer_is() -> None:
    said = Conversation.of([Message.user("a")])
    tool = ToolSpec("a.b")
    base = ModelRequest(said, "cheap", (tool,), {"type": "object"}, ModelSettings(temperature=0.5), "triage")
    same = ModelRequest(
        Conversation.of([Message.user("a")]),
        "cheap",
        (ToolSpec("a.b"),),
        {"type": "object"},
        ModelSettings(temperature=0.5),
    )
    assert base.digest == same.digest
    others = [
        ModelRequest(
            said.append(Message.user("b")), "cheap", (tool,), {"type": "object"}, ModelSettings(temperature=0.5)
        ),
        ModelRequest(said, "strong", (tool,), {"type": "object"}, ModelSettings(temperature=0.5)),
        ModelRequest(said, "cheap", (), {"type": "object"}, ModelSettings(temperature=0.5)),
        ModelRequest(said, "cheap", (tool,), None, ModelSettings(temperature=0.5)),
        ModelRequest(said, "cheap", (tool,), {"type": "object"}, ModelSettings(temperature=0.6)),
        ModelRequest(said, "cheap", (tool,), {"type": "object"}, ModelSettings(temperature=0.5), model="a:b"),
    ]
    assert len({request.digest for request in [base, *others]}) == len(others) + 1


@given(messages, json_values)
def test_a_reply_comes_back_from_json_as_it_was(message: Message, output: Any) -> None:
    reply = ModelReply(message, Usage(5, 6, 7, 1), "tool_call", "m-1", output, "no", "cut", {"id": "x"})
    assert ModelReply.from_json(orjson.loads(orjson.dumps(reply.as_json()))) == reply


def ask() -> ModelRequest:
    return ModelRequest(Conversation(), "cheap")


async def test_a_scripted_model_answers_in_order_and_repeats_its_last() -> None:
    double = ScriptedModel(
        ["hello", {"topic": "a"}, [("orders.get", {"id": 1})], lambda request: request.tier, ValueError("no")]
    )
    heard: list[str] = []
    assert (await double.request(ask(), heard.append)).text == "hello"
    assert (await double.request(ask())).output == {"topic": "a"}
    called = await double.request(ask())
    assert called.finish_reason == "tool_call" and called.tool_calls[0].name == "orders.get"
    assert (await double.request(ask())).text == "cheap"
    for _ in range(2):
        with pytest.raises(ValueError):
            await double.request(ask())
    assert heard == ["hello"] and len(double.requests) == 6
    assert (await ScriptedModel(["x"], usage=Usage(9)).request(ask())).cost == 9
    strict = ScriptedModel(["once"], strict=True)
    assert (await strict.request(ask())).usage == FREE
    with pytest.raises(AssertionError):
        await strict.request(ask())
