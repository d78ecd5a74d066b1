"""What a disturbed run did is held against the undisturbed one: in order where order counts, and nothing gets past."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.quality.drills.judge import Seen, difference, unlike

WRITES = st.lists(
    st.tuples(st.sampled_from(["parent", "first", "second"]), st.sampled_from(["pay", "note"]), st.integers(1, 3)),
    min_size=1,
    max_size=8,
)


def seen(*writes: tuple[str, str, int]) -> list[Seen]:
    """Writes of these runs, in this order; each is the payment or the note of an order, with its place as amount."""
    return [
        Seen(run, n, (tool, {"order_id": f"O-{order}", "amount": n})) for n, (run, tool, order) in enumerate(writes)
    ]


@settings(max_examples=60, deadline=None)
@given(WRITES, st.randoms(use_true_random=False))
def test_runs_that_overlap_may_act_in_any_order_between_them(writes: list[Any], chance: random.Random) -> None:
    clean, left = seen(*writes), dict[str, list[Seen]]()
    for one in clean:
        left.setdefault(one.run, []).append(one)
    mixed = list[Seen]()
    while left:
        run = chance.choice(sorted(left))
        mixed.append(left[run].pop(0))
        if not left[run]:
            del left[run]
    assert unlike(mixed, clean) == ""


@settings(max_examples=60, deadline=None)
@given(WRITES, st.data())
def test_a_write_that_is_repeated_missing_or_changed_is_found(writes: list[Any], data: st.DataObject) -> None:
    clean = seen(*writes)
    at = data.draw(st.integers(0, len(clean) - 1))
    name, args = clean[at].write
    assert name in unlike([*clean, clean[at]], clean)
    assert unlike([*clean[:at], *clean[at + 1 :]], clean).startswith("it did not do")
    changed = clean[at]._replace(write=(name, {**args, "amount": 1000}))
    assert "1000" in unlike([*clean[:at], changed, *clean[at + 1 :]], clean)


def test_what_one_run_does_about_one_order_has_its_order_and_what_it_does_about_two_has_none() -> None:
    clean = seen(("first", "note", 1), ("first", "pay", 1), ("first", "pay", 2))
    note, pay, other = clean
    assert "another order" in unlike([pay, note, other], clean)
    assert unlike([other, note, pay], clean) == ""


ROW = st.dictionaries(st.sampled_from(["id", "amount"]), st.integers(0, 3), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=6), st.randoms(use_true_random=False), st.data())
def test_a_table_is_a_multiset_of_rows(rows: list[Any], chance: random.Random, data: st.DataObject) -> None:
    shuffled = chance.sample(rows, len(rows))
    assert difference({"orders": shuffled}, {"orders": rows}) == ""
    at = data.draw(st.integers(0, len(rows) - 1))
    assert "orders has" in difference({"orders": [*rows, rows[at]]}, {"orders": rows})
    assert "orders has none" in difference({"orders": [*rows[:at], *rows[at + 1 :]]}, {"orders": rows})
    assert "orders has" in difference({"orders": [*rows[:at], {"id": 9}, *rows[at + 1 :]]}, {"orders": rows})


def test_a_table_that_is_new_or_gone_is_found() -> None:
    assert "refunds" in difference({"orders": [], "refunds": [1]}, {"orders": []})
    assert "orders" in difference({}, {"orders": [1]})
