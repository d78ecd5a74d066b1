"""Outside systems are told what waits for people: signed, at least once under one name, and never of the case itself."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from receiver import SECRET, Receiver, receiving
from tightship.core import kinds
from tightship.core.errors import LoadError, StoreLost, UnknownName
from tightship.core.world import SystemClock, World
from tightship.ledger import Draft, Guards, Ledger
from tightship.patterns import load_all
from tightship.review.notices import FIRST_PAUSE, LONGEST_PAUSE, pause
from tightship.runtime.deliveries import AT_ONCE, Deliveries
from tightship.runtime.projections import projections
from tightship.workflow.loader import load_workspace
from tightship.workflow.notify import Notify

HOUR = 3600.0


class Clock(SystemClock):
    """The machine's clock, which the test puts forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead


class Secrets:
    def __init__(self, **values: str) -> None:
        self.values = {"DUTY_SECRET": SECRET, **values}

    def get(self, name: str) -> str:
        if name not in self.values:
            raise UnknownName(f"there is no secret {name!r}")
        return self.values[name]


class Desk:
    """A store, and a process that tells."""

    def __init__(self, ledger: Ledger, clock: Clock, secrets: Secrets | None = None) -> None:
        self.ledger, self.clock, self.secrets = ledger, clock, secrets or Secrets()
        self.made: list[Deliveries] = []

    def deliveries(self, url: str, timeout: float = 5.0, **fields: Any) -> Deliveries:
        webhook = {"url": url, "secret": "${DUTY_SECRET}", "timeout": timeout}
        return self.of(duty=Notify.model_validate({"webhook": webhook, **fields}))

    def of(self, **targets: Notify) -> Deliveries:
        self.made.append(Deliveries(self.ledger, targets, lambda: self.secrets))
        return self.made[-1]

    async def opens(self, item: str, type: str = "review", role: str = "lead", run: str = "r-1", **more: Any) -> None:
        body = {"item": item, "type": type, "role": role, "title": f"case {item}", "package": "", **more}
        await self.ledger.append(Draft(run, kinds.OPENED, item, body))

    async def closes(self, item: str) -> None:
        await self.ledger.append(Draft("r-1", kinds.CLOSED, "", {"item": item, "decision": "approve", "by": "ann"}))

    async def row(self, item: str, event: str = "opened", target: str = "duty") -> dict[str, Any]:
        where = [("target", "=", target), ("item", "=", item), ("event", "=", event)]
        [row] = await self.ledger.select("deliveries", where)
        return row

    async def states(self, item: str) -> list[str]:
        entries = await self.ledger.entries(0, 10_000)
        told = [one.body for one in entries if one.kind == kinds.DELIVERY]
        return [body["state"] for body in told if body["item"] == item]

    async def texts(self) -> str:
        return repr([one.body for one in await self.ledger.entries(0, 10_000)])


async def look(*deliveries: Deliveries) -> None:
    """Look once, and wait for what that has begun."""
    await asyncio.gather(*(one.look() for one in deliveries))
    await asyncio.gather(*(task for one in deliveries for task in one._in_hand.values()))


@pytest.fixture(params=["memory", "sqlite"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    clock = Clock()
    world = World(clock)
    if request.param == "memory":
        ledger = Ledger.in_memory(world, projections())
    else:
        ledger = await Ledger.open(tmp_path / "store", world, projections())
    desk = Desk(ledger, clock)
    start = {"workflow": "support", "owner": "here", "tenant": "default", "reference": "T-9100"}
    await ledger.append(Draft("r-1", kinds.STARTED, "", start, 1), guards=Guards(fresh=True))
    yield desk
    for one in desk.made:
        await one.close()
    await ledger.close()


# --- what is told ------------------------------------------------------------------------------------


async def test_an_item_is_told_once_signed_and_without_its_package(desk: Desk) -> None:
    async with receiving() as receiver:
        deliveries = desk.deliveries(receiver.url)
        due = desk.clock.now() + HOUR
        await desk.opens("i-1", due=due, package="0badcafe" * 8)
        for _ in range(3):
            await look(deliveries)
            desk.clock.ahead += HOUR
        [(headers, body)] = receiver.received
        assert receiver.signed() and headers["content-type"] == "application/json"
        [told] = receiver.bodies
        assert told["type"] == "inbox.opened"
        assert told["data"].pop("deadline").endswith("Z")
        assert told["data"] == {
            "item": "i-1",
            "type": "review",
            "role": "lead",
            "title": "case i-1",
            "run": "r-1",
            "workflow": "support",
            "tenant": "default",
            "reference": "T-9100",
        }
        assert b"0badcafe" not in body
        assert await desk.states("i-1") == ["sending", "delivered"]


async def test_a_drift_is_told_although_it_is_of_no_run(desk: Desk) -> None:
    async with receiving() as receiver:
        deliveries = desk.deliveries(receiver.url, on=("drift",))
        await desk.opens("i-drift", type="drift", run="conduct")
        await look(deliveries)
        assert (await desk.row("i-drift"))["state"] == "delivered"


async def test_only_what_is_declared_is_told(desk: Desk) -> None:
    async with receiving() as receiver:
        deliveries = desk.deliveries(receiver.url, roles=["lead"], on=["review", "budget", "reminder"])
        await desk.opens("i-review")
        await desk.opens("i-other-role", role="clerk")
        await desk.opens("i-other-type", type="residual")
        rehearsal = {"workflow": "support", "owner": "here", "tenant": "default", "live": False}
        await desk.ledger.append(Draft("r-2", kinds.STARTED, "", rehearsal, 1), guards=Guards(fresh=True))
        await desk.opens("i-rehearsed", run="r-2")
        await look(deliveries)
        assert [one["data"]["item"] for one in receiver.bodies] == ["i-review"]
        await desk.ledger.append(Draft("r-1", kinds.REMINDED, "", {"item": "i-review", "role": "lead", "due": 1.0}))
        await desk.ledger.append(Draft("r-1", kinds.ASSIGNED, "", {"item": "i-other-role", "role": "lead", "by": "x"}))
        await look(deliveries)
        told = {(one["type"], one["data"]["item"]) for one in receiver.bodies[1:]}
        assert told == {("inbox.reminded", "i-review"), ("inbox.opened", "i-other-role")}
        assert len(set(receiver.ids)) == 3


async def test_what_had_waited_longer_than_within_when_a_target_was_declared_is_not_told(desk: Desk) -> None:
    async with receiving() as receiver:
        await desk.opens("i-old")
        desk.clock.ahead += 2 * HOUR
        await desk.opens("i-new")
        await look(desk.deliveries(receiver.url))
        assert [one["data"]["item"] for one in receiver.bodies] == ["i-new"]


async def test_what_came_while_no_process_was_there_is_tried_once_however_late(desk: Desk) -> None:
    async with receiving() as receiver:
        await look(desk.deliveries(receiver.url))
        await desk.opens("i-1")
        desk.clock.ahead += 5 * HOUR
        await look(desk.deliveries(receiver.url))
        assert await desk.states("i-1") == ["sending", "delivered"]


async def test_an_item_that_was_decided_meanwhile_is_not_told(desk: Desk) -> None:
    async with receiving(500) as receiver:
        deliveries = desk.deliveries(receiver.url)
        await desk.opens("i-1")
        await look(deliveries)
        await desk.closes("i-1")
        desk.clock.ahead += HOUR / 2
        await look(deliveries)
        assert len(receiver.received) == 1
        assert (await desk.row("i-1"))["state"] == "withdrawn"


# --- trying again ------------------------------------------------------------------------------------


async def test_a_receiver_that_fails_twice_is_told_under_one_name_after_growing_pauses(desk: Desk) -> None:
    async with receiving(503, 307) as receiver:
        deliveries = desk.deliveries(receiver.url)
        await desk.opens("i-1")
        await look(deliveries)
        assert (await desk.row("i-1"))["why"] == "answered 503"
        await look(deliveries)
        assert len(receiver.received) == 1  # its time has not come
        desk.clock.ahead += pause(1)
        await look(deliveries)
        assert (await desk.row("i-1"))["why"] == "answered 307"  # a redirect is not followed
        desk.clock.ahead += pause(1)
        await look(deliveries)
        assert len(receiver.received) == 2
        desk.clock.ahead += pause(2)
        await look(deliveries)
        assert len(receiver.received) == 3 and len(set(receiver.ids)) == 1 and receiver.signed()
        row = await desk.row("i-1")
        assert (row["state"], row["attempts"], row["why"]) == ("delivered", 3, "")
        assert await desk.states("i-1") == ["sending", "failed", "sending", "failed", "sending", "delivered"]


async def test_a_dead_receiver_is_given_up_after_within_and_leaves_no_secret_behind(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiving() as receiver:
        pass
    url = f"http://127.0.0.1:{receiver.port}/hooks/T0K3N"
    desk.secrets = Secrets(DUTY_URL=url)
    deliveries = desk.deliveries("${DUTY_URL}", within=60)
    await desk.opens("i-1")
    with caplog.at_level(logging.DEBUG, "tightship"):
        for _ in range(30):
            await look(deliveries)
            desk.clock.ahead += 5
    row = await desk.row("i-1")
    assert (row["state"], row["attempts"], row["why"]) == ("given up", 4, "ConnectError")
    assert [one.message for one in caplog.records if "was not told" in one.message]
    everything = await desk.texts() + caplog.text
    assert "T0K3N" not in everything and SECRET not in everything and f":{receiver.port}" not in everything


async def never() -> int:
    await asyncio.sleep(3600)
    return 200


async def test_a_slow_receiver_delays_no_other(desk: Desk) -> None:
    async with receiving(*[never] * 100) as slow, receiving() as quick:
        webhook = {"secret": "${DUTY_SECRET}", "timeout": 60}
        targets = {
            name: Notify.model_validate({"webhook": {**webhook, "url": one.url}})
            for name, one in (("slow", slow), ("quick", quick))
        }
        deliveries = desk.of(**targets)
        for number in range(2 * AT_ONCE):
            await desk.opens(f"i-{number}")
        await deliveries.look()  # it waits for none of them
        while len(quick.received) < 2 * AT_ONCE:
            await asyncio.wait_for(quick.came.wait(), 300)
            quick.came.clear()
        assert len(slow.received) <= AT_ONCE


async def test_a_slow_receiver_is_cut_off(desk: Desk) -> None:
    async with receiving(never) as slow:
        deliveries = desk.deliveries(slow.url, timeout=0.3)
        await desk.opens("i-0")
        await look(deliveries)
        row = await desk.row("i-0")
        assert (row["state"], row["why"]) == ("failed", "no answer within 0.3 s")


async def test_several_that_look_at_once_send_once(desk: Desk) -> None:
    async with receiving() as receiver:
        several = [desk.deliveries(receiver.url) for _ in range(4)]
        await look(several[0])
        for number in range(5):
            await desk.opens(f"i-{number}")
        await look(*several, *several)
        assert len(receiver.ids) == len(set(receiver.ids)) == 5


async def test_a_late_failure_of_one_does_not_undo_that_it_has_arrived_by_another(desk: Desk) -> None:
    """The first is frozen while its request is under way, for longer than its lease."""
    go = asyncio.Event()

    async def later() -> int:
        await go.wait()
        return 500

    async with receiving(later) as receiver:
        frozen, other = desk.deliveries(receiver.url), desk.deliveries(receiver.url)
        await desk.opens("i-1")
        await frozen.look()
        await asyncio.wait_for(receiver.came.wait(), 300)
        desk.clock.ahead += 11
        await look(other)
        go.set()
        await asyncio.gather(*frozen._in_hand.values())
        assert (await desk.row("i-1"))["state"] == "delivered"
        assert len(set(receiver.ids)) == 1


async def test_what_could_not_be_begun_while_others_are_looked_for_is_found_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails in the midst of a look that does not go so far back."""
    select, begun, fails, failed = desk.ledger.select, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def cut_off(*args: Any, **more: Any) -> Any:
        begun.set()
        await fails.wait()
        asyncio.get_running_loop().call_soon(failed.set)
        raise StoreLost("the connection is gone")

    async def slow(table: str, *args: Any, **more: Any) -> Any:
        found = await select(table, *args, **more)
        if table == "inbox" and desk.clock.ahead > 2 * HOUR and not failed.is_set():
            fails.set()
            await failed.wait()
            await asyncio.sleep(0.05)
        return found

    async with receiving() as receiver:
        deliveries = desk.deliveries(receiver.url, within=10 * HOUR)
        await look(deliveries)
        await desk.opens("i-1")
        monkeypatch.setattr(desk.ledger, "append", cut_off)
        await deliveries.look()  # takes it in hand
        await begun.wait()
        desk.clock.ahead = HOUR
        await deliveries.look()  # from here on only what is new is looked for
        monkeypatch.setattr(desk.ledger, "select", slow)
        desk.clock.ahead = 3 * HOUR
        await deliveries.look()
        monkeypatch.undo()
        assert not receiver.received
        for _ in range(2):
            await look(deliveries)
            desk.clock.ahead += 60
        assert len(receiver.received) == 1


async def test_what_could_not_be_begun_is_found_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as receiver:
        deliveries = desk.deliveries(receiver.url)
        await look(deliveries)
        await desk.opens("i-1")
        record, broken = deliveries._record, [True]

        async def fails_once(*args: Any) -> bool:
            if broken:
                broken.clear()
                raise OSError("the disk is full")
            return await record(*args)

        monkeypatch.setattr(deliveries, "_record", fails_once)
        await look(deliveries)
        assert not receiver.received
        desk.clock.ahead += HOUR
        await look(deliveries)
        assert len(receiver.received) == 1


@given(st.integers(1, 10_000))
def test_pauses_grow_up_to_a_bound(attempt: int) -> None:
    assert FIRST_PAUSE <= pause(attempt) <= pause(attempt + 1) <= LONGEST_PAUSE
    assert pause(attempt + 1) <= 2 * pause(attempt)


# --- default deny ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secrets", "why"),
    [
        ({}, "DUTY_URL or DUTY_SECRET is not set"),
        ({"DUTY_URL": "http://hooks.example.com/x"}, "it is not encrypted"),
        ({"DUTY_URL": "https://me:word@hooks.example.com/x"}, "it holds a password"),
        ({"DUTY_URL": "file:///etc/passwd"}, "it is no absolute http(s) URL"),
        ({"DUTY_URL": "http://127.0.0.1:1/", "DUTY_SECRET": "short"}, "fewer than 24"),
    ],
)
async def test_nothing_is_sent_where_it_may_not_be(desk: Desk, secrets: dict[str, str], why: str) -> None:
    desk.secrets = Secrets(**secrets)
    deliveries = desk.deliveries("${DUTY_URL}")
    await desk.opens("i-1")
    await look(deliveries)
    row = await desk.row("i-1")
    assert row["state"] == "failed" and why in row["why"]
    assert "example.com" not in row["why"] and "word@" not in row["why"]


@pytest.mark.parametrize(
    ("declared", "wrong"),
    [
        ("webhook: {url: 'http://hooks.example.com', secret: '${S}'}", "not encrypted"),
        ("webhook: {url: 'https://h.example.com', secret: abcdefghijklmnopqrstuvwxyz}", "a secret is named"),
        ("webhook: {url: 'https://h.example.com', secret: '${S}'}, roles: [nobody]", "'nobody', which is no role"),
        ("webhook: {url: 'https://h.example.com', secret: '${S}'}, on: [everything]", "on"),
        ("webhook: {url: 'https://h.example.com', secret: '${S}', timeout: 5m}", "timeout"),
    ],
)
def test_a_wrong_declaration_is_named_with_its_place(tmp_path: Path, declared: str, wrong: str) -> None:
    load_all()
    (tmp_path / "tightship.yaml").write_text(
        f"name: desk\nroles: {{lead: [nora]}}\nnotify:\n  duty: {{{declared}}}\n", "utf-8"
    )
    with pytest.raises(LoadError) as caught:
        load_workspace(tmp_path).raise_first()
    assert wrong in str(caught.value) and "tightship.yaml" in str(caught.value)
    assert "abcdefghijklm" not in str(caught.value)


def test_a_declaration_is_read_with_its_defaults(tmp_path: Path) -> None:
    load_all()
    (tmp_path / "tightship.yaml").write_text(
        "name: desk\nroles: {lead: [nora]}\nnotify:\n"
        "  duty: {webhook: {url: '${DUTY_URL}', secret: '${DUTY_SECRET}'}, roles: [lead], on: [review, reminder]}\n",
        "utf-8",
    )
    [duty] = load_workspace(tmp_path).raise_first().config.notify.values()
    assert (duty.webhook.url_name, duty.webhook.secret_name, duty.within) == ("DUTY_URL", "DUTY_SECRET", HOUR)
    assert duty.on == ("review", "reminder") and duty.webhook.timeout == 10


def test_the_receivers_own_check_would_find_a_forged_body() -> None:
    from tightship.context.feeds.webhook import secret_bytes, sign

    headers = sign(secret_bytes(SECRET), "n-1", 1, b"{}")
    assert Receiver(received=[(headers, b"{}")]).signed()
    assert not Receiver(received=[(headers, b"{ }")]).signed()
