"""A model and the shared context: it reads and writes what its agent declares, through the door, as ctx does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from model_desk import ANSWER, CONFIG, Desk, effects, of_kind
from tightship.core import kinds
from tightship.models import ModelRequest
from tightship.runtime.fork import fork

CONTEXT = """
context:
  plan: {writers: [triage, lead], type: {text: str}}
  stock/*: {writers: [lead], type: int, max_age: 1h}
  secret: {writers: [lead], readers: [nobody], type: str}
"""


def desk(folder: Path, script: Any, **more: Any) -> Desk:
    fields = {"tools": [], "reads": ["stock/*", "secret"], "writes": ["plan"], "config": CONFIG + CONTEXT, **more}
    return Desk(folder, script, **fields)


def answers(request: ModelRequest) -> list[Any]:
    """What the calls of the last reply gave."""
    return [orjson.loads(one.content) for one in request.conversation.messages() if one.role == "tool"]


def read(key: str, **more: Any) -> Any:
    return [("context.read", {"key": key, **more})]


def write(text: Any, expect: Any, key: str = "plan") -> Any:
    return [("context.write", {"key": key, "value": text, "expect": expect})]


async def test_it_reads_with_a_max_age_and_writes_if_the_version_still_stands(tmp_path: Path) -> None:
    made = desk(tmp_path, [read("stock/widget", max_age=60), read("plan"), write({"text": "order"}, 0), ANSWER])
    version = await made.space.context.set("stock/widget", 7, by="ann")
    run = await made.run()
    assert run.outcome == "completed"
    stock, plan, done = answers(made.requests[-1])
    assert (stock["value"], stock["version"], stock["writer"]) == (7, version, "ann")
    assert (plan["value"], plan["version"]) == (None, 0)
    value = await made.space.context.get("plan")
    assert (value.value, value.writer, value.version) == ({"text": "order"}, "triage", done["version"])
    called = [one for one in effects(run).values() if one["cls"] == "context"]
    assert [one["name"] for one in called] == ["context.read", "context.read", "context.write"]
    assert called[0]["context"][0] | {"age": 0} == {
        "scope": "tenant:default",
        "key": "stock/widget",
        "version": version,
        "age": 0,
        "max_age": 60,
    }


async def test_it_is_told_which_keys_there_are_and_what_they_hold(tmp_path: Path) -> None:
    made = desk(tmp_path, [ANSWER])
    await made.run()
    reading, writing = made.requests[0].tools
    assert (reading.name, writing.name) == ("context.read", "context.write")
    assert 'stock/*: {"type":"integer"' in reading.input_schema["properties"]["key"]["description"]
    assert writing.input_schema["properties"]["key"]["enum"] == ["plan"]
    assert writing.input_schema["properties"]["value"]["required"] == ["text"]
    assert "Use only the tools" in made.said(0)[0][1]


async def test_a_write_that_collides_is_told_with_the_version_and_the_model_decides_anew(tmp_path: Path) -> None:
    made = desk(tmp_path, [])

    def brain(request: ModelRequest) -> Any:
        given = answers(request)
        if not given:
            return write({"text": "mine"}, 0)
        if len(given) == 1:
            assert given[0]["error"] == "ConflictingWrite"
            return read("plan")
        if len(given) == 2:
            return write({"text": f"{given[1]['value']['text']} and mine"}, given[1]["version"])
        return ANSWER

    made = desk(tmp_path, [brain])
    await made.space.context.set("plan", {"text": "theirs"}, by="ann")
    run = await made.run()
    assert run.outcome == "completed"
    assert (await made.space.context.get("plan")).value == {"text": "theirs and mine"}
    assert len(of_kind(run, kinds.CONFLICT)) == 1  # what lost is kept


@pytest.mark.parametrize(
    ("call", "error", "recorded"),
    [
        (read("other/key"), "NotDeclared", True),  # of no declaration
        (read("secret"), "NotDeclared", True),  # its own declaration, but not the key's
        (write(7, 0, "stock/widget"), "InvalidArguments", False),  # not among its `writes`
        (write("text", 0), "InvalidArguments", False),  # another type
        (write({"text": "x"}, 99), "InvalidArguments", True),  # a version that never was
        (read("stock/widget", max_age="soon"), "InvalidArguments", False),
    ],
)
async def test_what_it_may_not_do_is_refused_and_told(tmp_path: Path, call: Any, error: str, recorded: bool) -> None:
    made = desk(tmp_path, [call, ANSWER])
    run = await made.run()
    [told] = answers(made.requests[-1])
    assert (run.outcome, told["error"]) == ("completed", error)
    assert bool([one for one in effects(run).values() if one["cls"] == "context"]) == recorded
    assert not await made.space.context.list()


async def test_a_key_outside_its_patterns_is_refused_at_the_door_whatever_the_access_list_says(tmp_path: Path) -> None:
    made = desk(tmp_path, [read("plan"), ANSWER], writes=[])
    await made.space.context.set("plan", {"text": "theirs"}, by="ann")
    run = await made.run()
    [told] = answers(made.requests[-1])
    assert told["error"] == "NotDeclared" and "does not declare the key plan" in told["message"]
    [refused] = [one for one in effects(run).values() if one["cls"] == "context"]
    assert (refused["error"]["error"], refused["denied"]) == ("NotDeclared", True)


async def test_an_agent_that_declares_none_has_none(tmp_path: Path) -> None:
    made = desk(tmp_path, [read("plan"), ANSWER], reads=[], writes=[], tools=["orders.get"])
    await made.run()
    assert [one.name for one in made.requests[0].tools] == ["orders.get"]
    [told] = answers(made.requests[-1])
    assert told["error"] == "InvalidArguments"


async def test_a_rehearsal_writes_nothing_and_a_fork_reads_what_is_there(tmp_path: Path) -> None:
    script = [read("plan"), write({"text": "mine"}, 0), ANSWER]
    made = desk(tmp_path, script)
    rehearsal = desk(tmp_path, [ANSWER], rehearse=True, ledger=made.ledger)
    assert (await rehearsal.run()).outcome == "completed"
    assert not await made.space.context.get("plan")
    run = await made.run()
    version = (await made.space.context.get("plan")).version
    again = desk(tmp_path, [read("plan"), write({"text": "other"}, version), ANSWER], ledger=made.ledger)
    assert (await fork(again.space, run.id)).outcome == "completed"
    plan, done = answers(again.requests[-1])
    assert (plan["value"], done) == ({"text": "mine"}, {"version": version, "end": "rehearsed"})
    assert (await made.space.context.get("plan")).value == {"text": "mine"}
