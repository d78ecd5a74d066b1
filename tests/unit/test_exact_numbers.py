"""A whole number from outside is kept as it is or refused: it never becomes the float that lies near."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship import Workspace
from tightship.cli._batch import parse
from tightship.cli._messages import read_json
from tightship.cli._value import parse_value
from tightship.connectors._http import Answer
from tightship.connectors._outcome import _value as body_of
from tightship.context.feeds.port import Delivery
from tightship.core import exact
from tightship.core.errors import InputRejected, InvalidArguments, TightshipError
from tightship.models._messages import arguments

LONG = "18446744073709551616"
"""2^64."""
NUMBERS = st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text() | st.sampled_from([LONG, f'"{LONG}', f"\\{LONG}", f'\\"{LONG}\\'])
VALUES = st.recursive(
    NUMBERS | TEXTS | st.booleans() | st.none(), lambda one: st.lists(one) | st.dictionaries(TEXTS, one)
)


def whole(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in whole(one)]
    if isinstance(value, list):
        return [number for one in value for number in whole(one)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_what_is_read_is_what_was_written_or_is_refused(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    try:
        read = exact.loads(text)
    except exact.NumberTooLong:
        assert any(not -(2**63) <= number < 2**64 for number in whole(value))
    else:
        assert read == value
        assert whole(read) == whole(value)


def test_where_the_number_stands_is_said() -> None:
    with pytest.raises(orjson.JSONDecodeError) as refused:
        exact.loads(f'{{"ä": "{LONG}",\n "n": -9{LONG}}}'.encode())
    assert (refused.value.lineno, refused.value.colno) == (2, 7)
    assert f"-9{LONG}" in refused.value.msg and "in quotes" in refused.value.msg


@pytest.mark.parametrize("text", [LONG, f"[{LONG}]", f'{{"n": {LONG}}}'])
def test_wherever_json_comes_in_such_a_number_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "given.json"
    file.write_text(text)
    ways = [
        lambda: parse_value(text),
        lambda: parse(text),
        lambda: read_json(file),
        lambda: Delivery("e-1", 0.0, text.encode()).event(),
        lambda: body_of(Answer(200, {"content-type": "application/json"}, text.encode())),
    ]
    for way in ways:
        with pytest.raises((InputRejected, InvalidArguments, ValueError)) as refused:
            way()
        assert LONG in str(refused.value)


def test_a_models_arguments_with_such_a_number_are_none() -> None:
    assert arguments(f'{{"account": {LONG}}}') == (None, f'{{"account": {LONG}}}')


async def test_a_shared_value_from_code_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "tightship.yaml").write_text(
        "name: desk\nroles: {operator: [ann]}\ncontext: {n: {writers: [operator], type: int}}\n"
    )
    async with Workspace.open(tmp_path) as ws:
        await ws.context.set("n", 2**64 - 1, by="ann")
        with pytest.raises(TightshipError):
            await ws.context.set("n", 2**64, by="ann")
        assert (await ws.context.get("n")).value == 2**64 - 1
