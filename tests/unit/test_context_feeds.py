"""What outside systems push: who may, what of it becomes which value, and that each delivery counts once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from engine_desk import Desk, simulate
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.cli import _listen, main
from tightship.cli._listen import Health, build_app
from tightship.context.feeds import Delivery, MemoryBroker, sign
from tightship.core import kinds
from tightship.core.errors import LoadError, StoreLost, UnknownName
from tightship.runtime.feeding import Feeds
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import Workspace

CONFIG = """
context:
  rate/*: {feeds: [bank], type: float, max_age: 10s, max_bytes: 100}
  stock: {feeds: [shop], type: int}
feeds:
  bank:
    webhook: {secret: '${BANK_SECRET}', window: 60s, max_bytes: 500}
    key: '"rate/" + event.currency'
    value: event.rate
    as_of: event.at
    when: event.kind != "ping"
  shop:
    broker: {url: '${SHOP_BROKER}', stream: stock, max_bytes: 500}
    key: '"stock"'
    value: event.count
    as_of: at
"""
SECRET = "a secret of more than 24 bytes"
EVENT = {"kind": "rate", "currency": "eur", "rate": 1.1, "at": 0.0}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANK_SECRET", SECRET)


Post = Callable[..., Awaitable[Any]]


def told(story: Callable[[Simulation, Desk, Post], Awaitable[None]]) -> None:
    """A story with somebody who posts: `post(event, id=…, key=…)` signs with the bank's secret unless told otherwise."""

    async def run(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        app = build_app(d.ws.context.feeds(), Health(d.ledger))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://desk") as client:

            async def post(
                event: Any, id: str = "m-1", *, key: str = SECRET, off: int = 0, feed: str = "bank", **headers: str
            ) -> Any:
                body = event if isinstance(event, bytes) else orjson.dumps(event)
                signed = sign(key.encode(), id, int(sim.clock.now()) + off, body)
                return await client.post(f"/context/{feed}", content=body, headers=signed | headers)

            await story(sim, d, post)

    simulate(run)


def test_a_signed_event_becomes_a_value_of_the_feed_as_old_as_its_source_says() -> None:
    async def story(sim: Simulation, d: Desk, post: Post) -> None:
        now = sim.clock.now()
        answer = await post({**EVENT, "at": now - 4})
        value = await d.ws.context.get("rate/eur")
        assert (answer.status_code, answer.json()) == (200, {"version": value.version})
        assert (value.value, value.writer, value.age) == (1.1, "bank", 4.0)

    told(story)


def test_whoever_has_not_signed_within_the_window_writes_nothing_and_is_told_nothing() -> None:
    async def story(sim: Simulation, d: Desk, post: Post) -> None:
        event = {**EVENT, "at": sim.clock.now()}
        other = sign(SECRET.encode(), "m-2", int(sim.clock.now()), b"{}")
        answers = [
            await post(event, key="another secret, long enough too"),
            await post(event, off=-61),
            await post(event, off=61),
            await post(event, feed="shop"),
            await post(event, feed="nobody"),
            await post(event, **other),  # signed for another body
            await post(event, **{"webhook-timestamp": "1e9"}),
            await post(event, **{"webhook-signature": ""}),
        ]
        assert {(one.status_code, one.text) for one in answers} == {(401, answers[0].text)}
        assert not await d.ws.context.get("rate/eur")
        assert await d.entries(kinds.CONTEXT) == await d.entries(kinds.NOTE) == []

    told(story)


def test_a_delivery_that_comes_again_changes_nothing_even_when_it_is_as_new_as_what_stands() -> None:
    async def story(sim: Simulation, d: Desk, post: Post) -> None:
        now = sim.clock.now()
        await post({**EVENT, "at": now}, "m-1")
        second = (await post({**EVENT, "rate": 1.2, "at": now}, "m-2")).json()
        again = [await post({**EVENT, "at": now}, "m-1") for _ in range(2)]
        assert [one.json() for one in again] == [second, second]
        assert (await d.ws.context.get("rate/eur")).value == 1.2
        assert len(await d.entries(kinds.CONTEXT)) == 2
        assert await d.entries(kinds.CONFLICT) == []

    told(story)


def test_what_is_late_is_kept_as_a_conflict_once() -> None:
    async def story(sim: Simulation, d: Desk, post: Post) -> None:
        now = sim.clock.now()
        newest = (await post({**EVENT, "at": now}, "m-2")).json()
        for _ in range(2):
            assert (await post({**EVENT, "rate": 0.9, "at": now - 9}, "m-1")).json() == newest
        [conflict] = await d.entries(kinds.CONFLICT)
        assert (conflict.body["rule"], conflict.body["by"]) == ("as_of", "bank")
        assert (await d.ws.context.get("rate/eur")).value == 1.1

    told(story)


def test_what_a_source_may_not_write_or_what_is_wrong_is_refused_and_noted() -> None:
    async def story(sim: Simulation, d: Desk, post: Post) -> None:
        now = sim.clock.now()
        good = {**EVENT, "at": now}
        cases: list[tuple[Any, int, str]] = [
            ({**good, "currency": "eur/x"}, 422, "UnknownName"),
            ({**good, "rate": "high"}, 422, "InvalidArguments"),
            ({**good, "at": now + 300}, 422, "InvalidArguments"),
            ({**good, "at": "yesterday"}, 422, "FormatMismatch"),
            ({"kind": "rate"}, 422, "DataMissing"),
            (b"{", 422, "InvalidArguments"),
        ]
        for number, (event, status, error) in enumerate(cases):
            answer = await post(event, f"m-{number}")
            assert (answer.status_code, answer.json()["error"]) == (status, error), event
        notes = await d.entries(kinds.NOTE)
        assert [(one.body["type"], one.body["feed"]) for one in notes] == [("feed.refused", "bank")] * len(cases)
        assert (await post(b" " * 501, "big")).status_code == 413
        ping = await post({"kind": "ping"}, "ping")
        assert (ping.status_code, ping.json()) == (200, {"version": None})
        assert await d.entries(kinds.CONTEXT) == []

    told(story)


def test_a_feed_that_a_key_does_not_name_may_not_push_it() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG.replace("feeds: [bank]", "feeds: [shop]"))
        event = {**EVENT, "at": sim.clock.now()}
        app = build_app(d.ws.context.feeds(), Health(d.ledger))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://desk") as client:
            body = orjson.dumps(event)
            headers = sign(SECRET.encode(), "m-1", int(sim.clock.now()), body)
            answer = await client.post("/context/bank", content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"error": "not_declared"})
        [stats] = await d.ws.context.stats("rate/eur")
        assert (stats.writes, stats.refusals) == (0, 1)

    simulate(story)


# --- brokers -----------------------------------------------------------------------------------------


def test_a_message_is_acknowledged_when_it_is_durable_and_counts_once_however_often_it_comes() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        feeds, broker, now = d.ws.context.feeds(), MemoryBroker(), sim.clock.now()
        for number in range(5):
            broker.publish({"count": number}, f"n-{number}", now + number / 100)
        append, failed = d.ledger.append, 0

        def broken(*drafts: Any, **more: Any) -> Any:
            nonlocal failed
            failed += 1
            if failed == 3:
                raise StoreLost("the disk")
            return append(*drafts, **more)

        d.ledger.append = broken  # type: ignore[method-assign]
        with pytest.raises(StoreLost):
            await feeds.take_some("shop", broker)
        assert broker.acknowledged == ["n-0", "n-1"]
        assert len(await d.entries(kinds.CONTEXT)) == 2
        broker.again()
        broker.publish({"count": 0}, "n-0", now)  # its acknowledgement was lost
        assert await feeds.take_some("shop", broker) == 4
        assert (await d.ws.context.get("stock")).value == 4
        assert len(await d.entries(kinds.CONTEXT)) == 5
        assert await d.entries(kinds.CONFLICT) == []

    simulate(story)


def test_a_message_that_can_never_be_taken_holds_up_no_other() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        refused: list[str] = []
        feeds = d.ws.context.feeds(lambda feed, event, text: refused.append(f"{feed} {event}"))
        broker, now = MemoryBroker(), sim.clock.now()
        for id, event in [("a", b"{"), ("b", {"count": "many"}), ("c", {"count": 3})]:
            broker.publish(event, id, now)
        await feeds.take_some("shop", broker)
        assert sorted(broker.acknowledged) == ["a", "b", "c"]
        assert (await d.ws.context.get("stock")).value == 3
        assert refused == ["shop refused"] * 2
        assert len(await d.entries(kinds.NOTE)) == 2

    simulate(story)


def test_a_message_beyond_its_feed_s_bytes_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        refused: list[str] = []
        feeds = d.ws.context.feeds(lambda feed, event, text: refused.append(text))
        broker, now = MemoryBroker(), sim.clock.now()
        read, event = list[bytes](), Delivery.event
        monkeypatch.setattr(Delivery, "event", lambda one: read.append(one.data) or event(one))
        fits, large = (orjson.dumps({"count": count, "more": "x" * more}) for count, more in ((3, 479), (4, 480)))
        assert (len(fits), len(large)) == (500, 501)
        broker.publish(fits, "a", now)
        broker.publish(large, "b", now + 1)
        await feeds.take_some("shop", broker)
        assert sorted(broker.acknowledged) == ["a", "b"]
        assert (await d.ws.context.get("stock")).value == 3
        assert set(read) == {fits}
        [said] = refused
        assert "501 bytes, more than its 500" in said
        assert len(await d.entries(kinds.NOTE)) == 1

    simulate(story)


def test_a_broker_that_does_not_answer_is_tried_again_until_it_does() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        events: list[str] = []
        feeds, broker = d.ws.context.feeds(lambda feed, event, text: events.append(event)), MemoryBroker()

        async def open() -> MemoryBroker:
            return broker

        broker.down = True
        draining = d.process.start(feeds.drain("shop", open))
        await sim.clock.sleep(2.0)
        broker.down = False
        broker.publish({"count": 1}, "n-1", sim.clock.now())
        await sim.clock.sleep(6.0)
        draining.cancel()
        assert (await d.ws.context.get("stock")).value == 1
        assert events.count("waits") > 2 and events[-1] == "connected"

    simulate(story)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=25), st.lists(st.integers(0, 24)))
def test_whatever_order_and_however_often_what_is_newest_stands(
    events: list[tuple[int, int]], before: list[int]
) -> None:
    """Each event has a name, and its time says how new it is; a name that comes again is the same event."""
    named = dict(enumerate(dict.fromkeys(events)))
    order = [*(one % len(named) for one in before), *named]

    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        feeds, now = d.ws.context.feeds(), sim.clock.now()
        for id in order:
            at, count = named[id]
            await feeds.take("shop", Delivery(f"n-{id}", now - at, orjson.dumps({"count": count})))
        value = await d.ws.context.get("stock")
        newest = min(at for at, _ in named.values())
        assert value.age == pytest.approx(newest, abs=1.0)
        assert value.value in {count for at, count in named.values() if at == newest}
        recorded = [*await d.entries(kinds.CONTEXT), *await d.entries(kinds.CONFLICT)]
        assert len(recorded) == len(named)

    simulate(story)


# --- declarations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("'${BANK_SECRET}'", "hunter2hunter2hunter2hunter2", "a secret is named, not written down"),
        ("webhook: {secret: '${BANK_SECRET}', window: 60s, max_bytes: 500}", "tenant: t", "exactly one of webhook"),
        ("    as_of: at\n", "", "as_of"),
        ("stream: stock", "stream: 'a b'", "stream"),
        ("window: 60s", "window: 2h", "window"),
    ],
)
def test_a_wrong_feed_is_an_error_of_loading(tmp_path: Path, was: str, becomes: str, says: str) -> None:
    text = CONFIG.replace(was, becomes)
    assert text != CONFIG
    (tmp_path / "tightship.yaml").write_text(f"name: desk\n{text}")
    with pytest.raises(LoadError, match=says) as found:
        Workspace.open(tmp_path)
    assert found.value.line and "hunter2" not in str(found.value)


def test_a_secret_that_is_not_set_or_can_be_guessed_is_said_before_anything_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(sim: Simulation) -> None:
        feeds = Desk(sim, [], CONFIG).ws.context.feeds()
        feeds.check_secrets()
        monkeypatch.setenv("BANK_SECRET", "short")
        with pytest.raises(Exception, match="can be guessed") as found:
            feeds.check_secrets()
        assert "short" not in str(found.value).replace("shorter", "")
        monkeypatch.delenv("BANK_SECRET")
        with pytest.raises(UnknownName, match="no secret 'BANK_SECRET'"):
            feeds.check_secrets()

    simulate(story)


def test_the_standard_s_own_example_is_verified() -> None:
    """The test vector of the Standard Webhooks libraries."""
    from tightship.context.feeds.webhook import secret_bytes, verified

    key = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body, at = b'{"test": 2432232314}', 1614265330
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": str(at),
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verified(key, headers, body, at + 5.0, 300) == Delivery(headers["webhook-id"], float(at), body)
    assert verified(key, headers, body + b" ", at + 5.0, 300) is None


async def test_a_broker_in_memory_gives_what_comes_while_it_is_waited_for() -> None:
    broker = MemoryBroker()
    waiting = asyncio.ensure_future(broker.take(10, 5.0))
    await asyncio.sleep(0)
    broker.publish({"count": 1}, "n-1", 1.0)
    [delivery] = await waiting
    assert delivery.event() == {"count": 1}
    assert await broker.take(10, 0.01) == []


# --- where webhooks come in --------------------------------------------------------------------------


def test_whoever_starts_and_stops_it_learns_whether_the_store_can_be_read_and_nothing_else() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        looks, failing = [0], [False]
        select = d.ledger.select

        async def looking(*args: Any, **more: Any) -> Any:
            looks[0] += 1
            if failing[0]:
                raise StoreLost("db.example.com is away")
            return await select(*args, **more)

        d.ledger.select = looking  # type: ignore[method-assign]
        app = build_app(d.ws.context.feeds(), Health(d.ledger))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://desk") as client:
            answers = [await client.get("/healthz") for _ in range(5)]
            assert [answer.status_code for answer in answers] == [200] * 5
            assert looks == [1], "one look answers all who ask within a second"
            failing[0] = True
            await sim.clock.sleep(2.0)
            away = await client.get("/healthz")
            assert away.status_code == 503 and "example" not in away.text
            assert (await client.post("/healthz")).status_code == 405

    simulate(story)


@pytest.mark.parametrize("place", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "feeds.example.com:8788"])
def test_nothing_is_taken_in_the_clear_from_other_machines(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tightship.yaml").write_text(f"name: desk\n{CONFIG}")
    assert main(["context", "listen", "--listen", place, "-w", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "in the clear" in said and "--behind-tls" in said


def test_behind_tls_it_listens_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address that is no machine's: it was let through, and the system says that it is not here."""
    (tmp_path / "tightship.yaml").write_text(f"name: desk\n{CONFIG}")
    assert main(["context", "listen", "--listen", "192.0.2.1:0", "--behind-tls", "-w", str(tmp_path)]) == 1
    assert "cannot listen on 192.0.2.1:0" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "served"), [([], False), (["--listen", "127.0.0.1:0"], True)])
def test_without_a_webhook_it_answers_for_its_health_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], served: bool
) -> None:
    """Feeds that are only followed need no server; whoever watches over the process may want one."""
    bank, shop = CONFIG.index("  bank:"), CONFIG.index("  shop:")
    (tmp_path / "tightship.yaml").write_text(f"name: desk\n{CONFIG[:bank]}{CONFIG[shop:]}")
    monkeypatch.setenv("SHOP_BROKER", "redis://127.0.0.1:1")
    places: list[str] = []

    def ready(shell: Any, feeds: Any, url: str) -> None:
        places.append(url)
        os.kill(os.getpid(), signal.SIGTERM)

    async def follow(feeds: Feeds) -> None:
        await asyncio.Event().wait()  # nothing comes

    monkeypatch.setattr(_listen, "_ready", ready)
    monkeypatch.setattr(Feeds, "follow", follow)
    assert main(["context", "listen", *more, "-w", str(tmp_path)]) == 0
    [place] = places
    assert place.startswith("http://127.0.0.1:") == served
