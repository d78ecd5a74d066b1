"""Names and messages keep their identity on the way to a provider and back; nothing heavy is imported before that."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from tightship.core.ports import ToolSpec
from tightship.models import Conversation, Message, ToolCall
from tightship.models._messages import Names, arguments, to_messages, wire_name, wrapped

names = st.lists(st.text("abz._-/: é0", min_size=1, max_size=80), min_size=1, max_size=6, unique=True)


@given(names)
def test_two_tools_never_share_a_name_at_the_provider(given_names: list[str]) -> None:
    wires = [wire_name(name) for name in given_names]
    assert len(set(wires)) == len(wires)
    for wire in wires:
        assert 1 <= len(wire) <= 64
        assert all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in wire)
        assert wire != "final_result"
    back = Names([ToolSpec(name) for name in given_names], Conversation())
    assert [back.ours(wire) for wire in wires] == given_names


def test_usual_names_stay_readable() -> None:
    assert wire_name("orders.get") == "orders__get"
    assert wire_name("plain") == "plain"
    assert wire_name("final_result") != "final_result"


def test_names_of_earlier_calls_are_known_too() -> None:
    said = Conversation.of([Message.assistant("", [ToolCall("1", "old.tool", {})])])
    assert Names([], said).ours("old__tool") == "old.tool"


def test_arguments_are_an_object_or_shown_as_what_they_are() -> None:
    assert arguments('{"a": 1}') == ({"a": 1}, None)
    assert arguments({"a": 1}) == ({"a": 1}, None)
    assert arguments("") == ({}, None)
    assert arguments(None) == ({}, None)
    assert arguments("[1]") == (None, "[1]")
    assert arguments('{"a"') == (None, '{"a"')


def test_an_answer_that_is_no_object_is_put_into_one() -> None:
    assert wrapped({"type": "object"}) == ({"type": "object"}, False)
    schema, inside = wrapped({"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {}}})
    assert inside
    assert schema["properties"]["value"] == {"type": "array", "items": {"$ref": "#/$defs/A"}}
    assert schema["$defs"] == {"A": {}}


def test_what_follows_an_answer_is_one_request() -> None:
    call = ToolCall("1", "a.b", {"x": 1})
    said = Conversation.of(
        [
            Message.system("s"),
            Message.user("u"),
            Message.assistant("", [call, ToolCall("2", "a.b", None, "{")]),
            Message.tool(call, {"y": 2}),
            Message.user("more"),
        ]
    )
    made = to_messages(said)
    assert [message.kind for message in made] == ["request", "response", "request"]
    assert [part.part_kind for part in made[0].parts] == ["system-prompt", "user-prompt"]
    assert [part.part_kind for part in made[2].parts] == ["tool-return", "user-prompt"]


def test_importing_models_imports_no_provider() -> None:
    script = (
        "import sys\n"
        "import tightship.models, tightship.models.service, tightship.models.tiers, tightship.models.prices\n"
        "import tightship.models.rehearsal, tightship.models.testing, tightship.connectors, tightship.models.provider\n"
        "heavy = [name for name in ('pydantic_ai', 'openai', 'genai_prices', 'anthropic') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_the_port_needs_neither_http_nor_yaml() -> None:
    script = (
        "import sys\nimport tightship.models, tightship.connectors\n"
        "heavy = [name for name in ('httpx2', 'pydantic', 'ruamel', 'jsonschema_rs') if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
