"""Plain functions as tools, and the scripted double."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import tightship
from tightship.connectors.python import load_tools, tool
from tightship.connectors.testing import ScriptedTool
from tightship.core.errors import (
    DataMissing,
    InvalidArguments,
    LoadError,
    OutcomeUnknown,
    TimedOut,
    Unforeseen,
    WrongShape,
)
from tightship.core.ports import Reply, Request, ToolSpec, UndoSpec, Usage


class Money(BaseModel):
    amount: float
    currency: Literal["EUR", "USD"] = "EUR"


def ask(**args: Any) -> Request:
    return Request(args, "k", "r", "a", 9e12)


@tool(effect="read", price="0.001", name="rates.convert", timeout=0.2, cache_seconds=5)
async def convert(money: Money, on: dt.date, schema: str = "v2") -> Money:
    """Convert an amount."""
    assert isinstance(on, dt.date) and schema
    return Money(amount=money.amount * 2, currency="USD")


async def test_annotations_become_the_contract_and_the_values() -> None:
    spec = convert.spec
    assert (spec.name, spec.effect, spec.description) == ("rates.convert", "read", "Convert an amount.")
    assert (spec.price, spec.timeout, spec.cache_seconds) == (Usage(usd=1_000_000), 0.2, 5)
    assert spec.input_schema["required"] == ["money", "on"]
    assert spec.input_schema["additionalProperties"] is False
    assert spec.input_schema["properties"]["schema"]["default"] == "v2"
    assert spec.output_schema is not None and set(spec.output_schema["properties"]) == {"amount", "currency"}
    reply = await convert.perform(ask(money={"amount": 2}, on="2026-01-31"))
    assert reply == Reply({"amount": 4.0, "currency": "USD"}, Usage(usd=1_000_000))
    assert (await convert(Money(amount=1), dt.date(2026, 1, 1))).amount == 2


@pytest.mark.parametrize(
    "args",
    [
        {"money": {"amount": 2}},
        {"money": {"amount": "much"}, "on": "2026-01-31"},
        {"money": {"amount": 2}, "on": "2026-01-31", "invented": 1},
    ],
)
async def test_arguments_that_do_not_fit_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match=r"rates\.convert"):
        await convert.perform(ask(**args))


def broken(effect: Literal["read", "write"], how: str) -> Any:
    @tool(effect=effect, name=f"broken.{how}", timeout=0.05)
    async def function() -> int:
        if how == "raises":
            raise ValueError("no")
        if how == "hangs":
            await asyncio.sleep(30)
        if how == "times out by itself":
            raise TimeoutError("own")
        if how == "missing":
            raise DataMissing("not there")
        return "text"  # type: ignore[return-value]

    return function


@pytest.mark.parametrize(
    ("how", "read", "write"),
    [
        ("raises", Unforeseen, OutcomeUnknown),
        ("hangs", TimedOut, OutcomeUnknown),
        ("times out by itself", Unforeseen, OutcomeUnknown),
        ("missing", DataMissing, DataMissing),
        ("returns text", WrongShape, OutcomeUnknown),
    ],
)
async def test_what_goes_wrong_inside_is_told_apart(how: str, read: Any, write: Any) -> None:
    with pytest.raises(read) as caught:
        await broken("read", how).perform(ask())
    assert type(caught.value) is read
    with pytest.raises(write) as caught:
        await broken("write", how).perform(ask())
    assert type(caught.value) is write


async def test_a_function_may_take_the_request_state_its_cost_and_be_looked_up() -> None:
    done: dict[str, int] = {}

    @tool(effect="write", name="shelf.put", idempotency="key", undo=UndoSpec("shelf.take", {"n": "args.n"}))
    async def put(n: int, request: Request) -> Reply:
        done[request.key] = n
        return Reply({"n": n}, Usage(usd=7), {"as_of": 1.0})

    assert list(put.spec.input_schema["properties"]) == ["n"]
    assert put.spec.can_lookup is False
    with pytest.raises(OutcomeUnknown):
        await put.lookup(ask(n=3))

    @put.looked_up_by
    async def find(request: Request) -> Reply | None:
        return Reply({"n": done[request.key]}) if request.key in done else None

    assert put.spec.can_lookup is True
    assert await put.lookup(ask(n=3)) is None
    assert await put.perform(ask(n=3)) == Reply({"n": 3}, Usage(usd=7), {"as_of": 1.0})
    assert await put.lookup(ask(n=3)) == Reply({"n": 3})
    assert find is not None


def test_the_undo_of_a_tool_is_a_name_or_a_whole_spec() -> None:
    def declared(undo: Any) -> UndoSpec | None:
        @tool(effect="write", name="shelf.put", undo=undo)
        async def put(n: int) -> int:
            return n

        return put.spec.undo

    assert declared("shelf.take") == tightship.UndoSpec("shelf.take")
    assert declared(UndoSpec("shelf.take", {"n": "args.n"})) == UndoSpec("shelf.take", {"n": "args.n"})
    assert declared(None) is None


@pytest.mark.parametrize("undo", ["", 7, {"tool": "shelf.take"}])
def test_an_undo_that_names_no_tool_is_refused_where_the_tool_is_declared(undo: Any) -> None:
    with pytest.raises(LoadError, match="names no tool") as caught:

        @tool(effect="write", name="shelf.put", undo=undo)
        async def put(n: int) -> int:
            return n

    assert caught.value.file == __file__


def test_a_read_has_no_undo() -> None:
    with pytest.raises(LoadError, match="only a write"):

        @tool(effect="read", name="shelf.look", undo="shelf.take")
        async def look(n: int) -> int:
            return n


def _plain() -> int:
    return 1


async def _unannotated(a) -> int:  # type: ignore[no-untyped-def]
    return a


async def _variadic(*a: int) -> int:
    return len(a)


class Opaque:
    pass


async def _opaque(a: Opaque) -> int:
    return 1


@pytest.mark.parametrize("function", [_plain, _unannotated, _variadic, _opaque])
def test_functions_that_are_no_tools_say_where_and_why(function: Any) -> None:
    with pytest.raises(LoadError) as caught:
        tool(effect="read")(function)
    assert caught.value.file == __file__
    assert caught.value.line and caught.value.fix


def test_a_folder_of_tools(tmp_path: Path) -> None:
    (tmp_path / "rates.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from tightship.connectors import tool\n"
        "@dataclass\nclass Rate:\n    value: float\n"
        "@tool(effect='read')\nasync def today(base: str) -> Rate:\n    return Rate(1.5)\n"
    )
    (tmp_path / "_private.py").write_text("raise RuntimeError('not a tool file')")
    found = load_tools(tmp_path)
    assert list(found) == ["rates.today"]
    assert found["rates.today"].spec.output_schema is not None


async def test_tools_of_a_folder_run(tmp_path: Path) -> None:
    (tmp_path / "math.py").write_text(
        "from tightship.connectors import tool\n"
        "@tool(effect='read')\nasync def twice(n: int) -> int:\n    return 2 * n\n"
    )
    assert (await load_tools(tmp_path)["math.twice"].perform(ask(n=4))).value == 8


@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        ("def broken(:\n", "not Python", 1),
        ("\nimport nothing_of_that_name\n", "nothing_of_that_name", 2),
        ("\n\n1 / 0\n", "ZeroDivisionError", 3),
        (
            "from tightship.connectors import tool\n"
            "for n in (1, 2):\n"
            "    @tool(effect='read', name='same')\n"
            "    async def f() -> int: return 1\n"
            "    globals()[f'f{n}'] = f\n",
            "same",
            None,
        ),
    ],
)
def test_tool_files_that_cannot_be_used_say_where(tmp_path: Path, text: str, says: str, line: int | None) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(LoadError, match=says) as caught:
        load_tools(tmp_path)
    assert caught.value.file == str(tmp_path / "bad.py")
    assert caught.value.line == line


# --- the scripted double ---------------------------------------------------------------------------------------------


async def test_a_scripted_tool_answers_in_order_and_repeats_its_last() -> None:
    double = ScriptedTool("a.b", [1, Reply(2, Usage(usd=5)), lambda request: request.args["n"], DataMissing("gone")])
    assert (await double.perform(ask())).value == 1
    assert (await double.perform(ask())).usage.usd == 5
    assert (await double.perform(ask(n=9))).value == 9
    for _ in range(2):
        with pytest.raises(DataMissing):
            await double.perform(ask())
    assert len(double.calls) == 5


async def test_a_strict_script_runs_out() -> None:
    double = ScriptedTool(ToolSpec("a.b", effect="write"), [1], strict=True)
    assert await double.lookup(ask()) is None
    await double.perform(ask())
    assert await double.lookup(ask()) == Reply(1)
    with pytest.raises(AssertionError, match=r"a\.b"):
        await double.perform(ask())
