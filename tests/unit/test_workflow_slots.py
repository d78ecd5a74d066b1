"""Schedules: what is a cron expression, and which slots it names."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.workflow.slots import check_cron, check_timezone, last_slot, next_slot, slot_name, slots_between

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize("text", ["0 7 * * mon-fri", "*/15 * * * *", "@daily", "5 4 1 jan,jul *"])
def test_five_fields_and_the_nicknames_are_taken(text: str) -> None:
    assert check_cron(text) == text


@pytest.mark.parametrize(
    "text", ["", "soon", "* * * *", "0 0 30 2 *", "61 * * * *", "* * * * * *", "R * * * *", "H 3 * * *"]
)
def test_what_names_no_time_or_one_by_chance_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cron|names no time|chance"):
        check_cron(text)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", ""])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        check_timezone(name)


def test_slots_are_those_of_the_zone_before_and_after_the_clocks_change() -> None:
    cron = "0 7 * * *"
    days = slots_between(cron, "Europe/Berlin", at("2026-03-27T12:00"), at("2026-03-30T12:00"))
    assert days == [at("2026-03-28T07:00"), at("2026-03-29T07:00"), at("2026-03-30T07:00")]
    assert [slot_name(slot) for slot in days] == [
        "schedule:2026-03-28T06:00:00Z",
        "schedule:2026-03-29T05:00:00Z",
        "schedule:2026-03-30T05:00:00Z",
    ]


def test_a_time_that_the_clocks_skip_is_a_slot_when_they_have_gone_forward() -> None:
    assert next_slot("30 2 * * *", "Europe/Berlin", at("2026-03-28T12:00")) == at("2026-03-29T03:00")


@given(
    cron=st.sampled_from(["* * * * *", "*/7 3 * * *", "0 7 * * mon-fri", "30 2 * * *", "@monthly"]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    now=st.integers(1_600_000_000, 2_000_000_000),
)
def test_the_last_slot_has_come_and_the_next_has_not(cron: str, zone: str, now: int) -> None:
    last, following = last_slot(cron, zone, now), next_slot(cron, zone, now)
    assert last <= now < following
    assert slots_between(cron, zone, last, following) == []
    assert last_slot(cron, zone, last) == last
