"""YAML files: YAML 1.2 values that know where they stand, and errors that name file, line, column and fix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.core.errors import LoadError
from tightship.workflow.source import (
    MAX_BYTES,
    Mark,
    MarkedStr,
    did_you_mean,
    find_mark,
    parse_source,
    plain,
)


def test_words_of_yaml_1_1_stay_text():
    text = "on: yes\noff: no\nday: 2024-01-31\ntime: 12:30:45\nold: 1_000\ncountry: NO\n"
    assert parse_source(text, "f.yaml") == {
        "on": "yes",
        "off": "no",
        "day": "2024-01-31",
        "time": "12:30:45",
        "old": "1_000",
        "country": "NO",
    }


def test_scalars_follow_the_core_schema():
    text = "a: 12\nb: 0x1F\nc: 0o17\nd: 012\ne: -1.5e3\nf: .5\ng: true\nh: ~\ni:\nj: ''\nk: !!str 12\nl: '12'\n"
    assert parse_source(text, "f.yaml") == {
        "a": 12,
        "b": 31,
        "c": 15,
        "d": 12,
        "e": -1500.0,
        "f": 0.5,
        "g": True,
        "h": None,
        "i": None,
        "j": "",
        "k": "12",
        "l": "12",
    }


def test_every_key_value_and_item_knows_its_place():
    found = parse_source("a: 1\nlist:\n  - x\n  - {deep: here}\n", "f.yaml")
    assert found.keys_at["list"] == Mark("f.yaml", 2, 1)
    assert find_mark(found, ["a"]) == Mark("f.yaml", 1, 4)
    assert find_mark(found, ["list", 1, "deep"]) == Mark("f.yaml", 4, 12)
    assert find_mark(found, ["list", 1, "deep"], key=True) == Mark("f.yaml", 4, 6)
    assert find_mark(found, ["list", 1, "absent"]) == Mark("f.yaml", 4, 5)
    assert isinstance(found["list"][0], MarkedStr) and found["list"][0].mark == Mark("f.yaml", 3, 5)


@pytest.mark.parametrize(
    ("text", "line", "column", "expected"),
    [
        ("a: x == 1\n", 1, 3, (1, 6)),
        ("a: 'x == 1'\n", 1, 3, (1, 7)),
        ('a: "x == 1"\n', 1, 3, (1, 7)),
        ("a: |\n  x ==\n  1\n", 2, 1, (3, 3)),
    ],
)
def test_a_place_inside_a_text_is_found_in_the_file(text: str, line: int, column: int, expected: tuple[int, int]):
    place = parse_source(text, "f.yaml")["a"].place(line, column)
    assert (place.line, place.column) == expected


BAD = [
    ("a: 1\n\tb: 2\n", 2, "tab"),
    ("a: [1, 2\nb: 3\n", 2, "no YAML"),
    ("a: 1\nb: 2\na: 3\n", 3, "twice"),
    ("a: b: c\n", 1, "mapping values"),
    ("a: *nope\n", 1, "undefined alias"),
    ("a: 1\n---\nb: 2\n", 2, "another document"),
    ("", 1, "empty"),
    ("# only a comment\n", 1, "empty"),
    ('a: "open\n', 2, "end of stream"),
    ("a: \x01\n", 1, "control character"),
    ("- &a [*a]\n", 1, "alias refers to what it stands in"),
    ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge keys"),
    ("a: !python/object foo\n", 1, "tag"),
    ("a: !!python/object/apply:os.system [ls]\n", 1, "tag"),
    ("? [x]\n: 2\n", 1, "a key is text"),
    ("[" * 2000 + "]" * 2000, 1, "nested too deeply"),
    ("[" * 70 + "]" * 70, 1, "nested too deeply"),
    ("a: 1e999\n", 1, "too large"),
    ("a: 99999999999999999999\n", 1, "too large"),
    (b"a: b\nc: \xff\xfe\n", 2, "UTF-8"),
    (b"a: " + b"x" * MAX_BYTES, 1, "larger than"),
]


@pytest.mark.parametrize(("text", "line", "said"), BAD)
def test_what_cannot_be_read_is_refused_with_place_and_fix(text: str | bytes, line: int, said: str):
    with pytest.raises(LoadError) as refused:
        parse_source(text, "f.yaml")
    error = refused.value
    assert said in error.message
    assert (error.file, error.line) == ("f.yaml", line)
    assert error.column is not None and error.column >= 1
    assert error.fix


def test_aliases_count_in_full_so_a_small_file_cannot_grow():
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for before, name in zip("abcdefg", "bcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    with pytest.raises(LoadError, match="too many values"):
        parse_source("\n".join(lines), "f.yaml")


def test_a_few_aliases_are_fine():
    assert parse_source("a: &x [1, 2]\nb: *x\n", "f.yaml") == {"a": [1, 2], "b": [1, 2]}


def test_the_same_text_read_again_has_values_and_places_of_its_own():
    first, second = (parse_source("names: [ann]", name) for name in ("a.yaml", "b.yaml"))
    first["names"].append("ben")
    assert second == {"names": ["ann"]}
    assert [str(found.mark) for found in (first, second)] == ["a.yaml:1:1", "b.yaml:1:1"]


def test_a_byte_order_mark_and_windows_lines_do_no_harm():
    assert parse_source(b"\xef\xbb\xbfa: 1\r\nb: |\r\n  x\r\n", "f.yaml") == {"a": 1, "b": "x\n"}


def test_near_words_are_proposed_and_others_listed():
    assert did_you_mean("chekpoint", ["checkpoint", "review"]) == "did you mean 'checkpoint'?"
    assert did_you_mean("zzz", ["b", "a"]) == "use one of: a, b"
    assert "none" in did_you_mean("x", [])


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="ascii", categories=["L", "N"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_json_is_read_as_the_yaml_that_it_is(value: object):
    import json

    assert plain(parse_source(json.dumps({"value": value}), "f.yaml")) == {"value": value}


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_load_error(data: bytes):
    try:
        parse_source(data, "f.yaml")
    except LoadError as error:
        assert error.file == "f.yaml" and error.line and error.fix
