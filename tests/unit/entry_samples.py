"""Entries and a clock for tests that need no store: a list of entries is a ledger that somebody wrote before."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

START = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC."""


@dataclass(slots=True)
class Entry:
    n: int
    at: float
    log: str
    run: str
    kind: str
    key: str
    epoch: int = 1
    body: Mapping[str, Any] = field(default_factory=dict)


class Log:
    """Appends entries, one second apart unless told otherwise."""

    def __init__(self, run: str = "r-1", log: str = "default") -> None:
        self.run, self.log = run, log
        self.entries: list[Entry] = []
        self.now = START

    def add(self, kind: str, key: str = "", /, *, wait: float = 1.0, **body: Any) -> Entry:
        self.now += wait
        entry = Entry(len(self.entries) + 1, self.now, self.log, self.run, kind, key, 1, body)
        self.entries.append(entry)
        return entry


class VirtualClock:
    """Time that moves only when the test moves it."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> float:
        return START + self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.time + seconds, self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Wake sleepers in order, letting each run before time moves on."""
        end = self.time + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, future = heapq.heappop(self._sleepers)
            self.time = max(self.time, at)
            if not future.done():
                future.set_result(None)
            await self.settle()
        self.time = end

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


def _without_args(body: dict[str, Any]) -> dict[str, Any]:
    """The settle of an admitted effect does not repeat what was asked."""
    return {name: value for name, value in body.items() if name != "args"}


def support_run() -> tuple[Log, dict[str, Any]]:
    """A practice run of a support desk: two agents side by side, a retry, a refusal, a review, an action, all done.

    Returns the log and the values of its addresses.
    """
    log = Log()
    log.add(
        "run.started",
        workflow="support",
        version="v1",
        definition="a-def",
        input="a-input",
        tenant="default",
        build="b1",
        owner="desk:1",
    )
    log.add(
        "effect.settled",
        "triage/triage/1/tool/1",
        name="kb.search",
        cls="read",
        agent="triage",
        workflow="support",
        args="a-q",
        out="a-kb",
        ms=12.4,
        trust=1,
    )
    log.add("turn.done", "triage/triage/1", agent="triage", hash="a-triage-in", out="a-triage", ms=1020.0)
    crm = {"name": "crm.get", "cls": "read", "agent": "account", "workflow": "support", "args": "a-c17"}
    log.add(
        "effect.admitted", "account/account/1/tool/1", **crm, reserve={"usd": 2_000_000, "tokens": 0}, not_after=1.0
    )
    again = {"error": {"error": "TimedOut", "kind": "unavailable"}, "detail": "a-timeout", "usd": 2_000_000, "ms": 0}
    log.add("effect.settled", "account/account/1/tool/1", **_without_args(crm), **again, again=True)
    search = {"name": "kb.search", "cls": "read", "agent": "knowledge", "workflow": "support", "args": "a-q"}
    log.add("effect.settled", "knowledge/knowledge/1/tool/1", **search, out="a-kb", cached=True, ms=0)
    log.add(
        "effect.admitted",
        "account/account/1/tool/1",
        **crm,
        reserve={"usd": 2_000_000, "tokens": 0},
        not_after=1.0,
        attempt=2,
    )
    log.add(
        "effect.settled",
        "account/account/1/tool/1",
        **_without_args(crm),
        out="a-account",
        usd=1_000_000,
        ms=31.0,
        attempt=2,
        meta={"as_of": "2026-01-01"},
    )
    log.add("turn.done", "knowledge/knowledge/1", agent="knowledge", hash="a-know-in", out="a-know", ms=3000.0)
    log.add("turn.done", "account/account/1", agent="account", hash="a-acc-in", out="a-acc", ms=6000.0)
    model = {"name": "cheap", "cls": "model", "agent": "respond", "workflow": "support", "args": "a-prompt"}
    log.add("effect.admitted", "respond/respond/1/model/1", **model, reserve={"usd": 9_000_000, "tokens": 2000})
    log.add(
        "effect.settled",
        "respond/respond/1/model/1",
        **_without_args(model),
        out="a-text",
        usd=5_000_000,
        tokens_in=900,
        tokens_out=100,
        cached_in=400,
        ms=800.0,
        policy=["models-eu"],
        meta={"model": "practice-model-1", "finish_reason": "stop"},
    )
    log.add(
        "effect.settled",
        "respond/respond/1/tool/2",
        name="mail.send",
        cls="write",
        agent="respond",
        workflow="support",
        args="a-mail",
        ms=0,
        error={"error": "NotDeclared"},
        detail="a-denied",
        denied=True,
    )
    log.add("turn.done", "respond/respond/1", agent="respond", hash="a-resp-in", out="a-resp", ms=3100.0)
    log.add("note", "check/note:checkpoint.failed/1", type="checkpoint.failed", reason="no citation", attempt=0)
    log.add(
        "note", "budget/run//usd/10", type="budget.alert", scope="run", unit="usd", spent=8_000_000, limit=10_000_000
    )
    log.add("budget.extended", "respond/respond/1!/budget/1", scope="run", usd=10_000_000, by="nora")
    log.add("decided", "review/given/1", value={"threshold": 0.8})
    log.add(
        "inbox.opened",
        "review/ask/1",
        item="i-1",
        type="review",
        role="support_lead",
        title="respond: to be reviewed",
        package="a-package",
        due=log.now + 3600,
    )
    log.add("run.parked", wake_at=log.now + 3600, waiting=["i-1"], seen=0, seconds=3.0)
    log.add("inbox.closed", wait=600, item="i-1", decision="approve", by="nora", reason="fits")
    log.add("run.claimed", owner="desk:2", build="b1")
    reply = {"name": "helpdesk.reply", "cls": "write", "agent": "workflow", "workflow": "support", "args": "a-reply"}
    log.add(
        "effect.admitted",
        "reply/helpdesk.reply/1",
        **{name: value for name, value in reply.items() if name != "workflow"},
        claim="c1",
        undo={"tool": "helpdesk.retract", "args": {}},
        not_after=1.0,
    )
    log.add("effect.settled", "reply/helpdesk.reply/1", **_without_args(reply), out="a-sent", ms=40.0, claim="c1")
    log.add(
        "run.ended",
        outcome="completed",
        output="a-output",
        usd=8_000_000,
        tokens_in=900,
        tokens_out=100,
        calls=6,
        seconds=4.0,
        seen=22,
    )
    values: dict[str, Any] = {
        "a-def": {
            "workflow": "support",
            "workflows": {"support": {"owner": "customer-care", "purpose": "answer a ticket"}},
            "agents": {
                "triage": {"owner": "team-triage", "tools": ["kb.search"]},
                "account": {"owner": "team-data", "tools": ["crm.get"]},
                "knowledge": {"tools": ["kb.search"]},
                "respond": {"owner": "", "tools": []},
            },
        },
        "a-input": {"ticket": "where is my order", "customer_id": "c-17"},
        "a-triage-in": {"ticket": "where is my order"},
        "a-triage": {"topic": "order", "confidence": 0.91, "reason": "mentions an order"},
        "a-know-in": {"triage": {"topic": "order"}},
        "a-acc-in": {"customer_id": "c-17"},
        "a-resp-in": {"ticket": "where is my order", "triage": {}, "account": {}, "style": "short"},
        "a-resp": {"text": "It is on its way."},
        "a-denied": {"message": "respond did not declare mail.send"},
        "a-package": {
            "kind": "review",
            "what_happened": "'triage.confidence < threshold' holds",
            "evidence": {"triage.confidence": 0.7, "respond": {"text": "It is on its way."}},
            "rules": [],
        },
    }
    return log, values


def undone_run() -> tuple[Log, dict[str, Any]]:
    """A practice run that was cancelled after two writes: one was undone, one could not be; a third is unknown."""
    log = Log(run="r-2")
    log.add("run.started", workflow="order", version="v2", definition="a-def", input="a-input", tenant="default")
    for number, name in enumerate(("orders.place", "mail.send"), 1):
        body = {"name": name, "cls": "write", "agent": "workflow", "args": f"a-{number}"}
        undo = {"undo": {"tool": "orders.cancel", "args": {}}} if number == 1 else {}
        log.add("effect.admitted", f"step{number}/{name}/1", **body, **undo)
        log.add(
            "effect.settled",
            f"step{number}/{name}/1",
            **_without_args(body),
            workflow="order",
            out=f"a-out-{number}",
            ms=5.0,
        )
    body = {"name": "ledger.book", "cls": "write", "agent": "workflow", "args": "a-3"}
    log.add("effect.admitted", "step3/ledger.book/1", **body)
    error = {"error": {"error": "OutcomeUnknown", "kind": "unforeseen"}, "detail": "a-lost"}
    log.add("effect.settled", "step3/ledger.book/1", **_without_args(body), workflow="order", **error, ms=0)
    log.add(
        "note", "step3/ledger.book/1!/note:exception/1", type="exception", kind="unforeseen", error="OutcomeUnknown"
    )
    log.add("effect.admitted", "step4/stock.take/1", name="stock.take", cls="write", agent="workflow", args="a-4")
    log.add("signal", type="cancel", by="omar", detail="a-said")
    log.add("decided", "run/interrupted", value={"signal": "Cancelled", "reason": "", "scope": "", "detail": "a-said"})
    undo = {"name": "orders.cancel", "cls": "undo", "agent": "workflow", "args": "a-5"}
    log.add("effect.admitted", "undo/step1/orders.place/1", **undo, undoes="step1/orders.place/1")
    log.add(
        "effect.settled",
        "undo/step1/orders.place/1",
        **_without_args(undo),
        workflow="order",
        out="a-cancelled",
        ms=9.0,
    )
    log.add("run.ended", outcome="cancelled", reason="cancelled", detail="a-detail", residual=1, usd=0, calls=4)
    residual = [{"key": "step2/mail.send/1", "tool": "mail.send", "why": "no compensation is declared for it"}]
    detail = {"message": "customer called", "undone": ["step1/orders.place/1"], "residual": residual}
    return log, {
        "a-detail": detail,
        "a-lost": {"message": "the connection dropped"},
        "a-said": {"reason": "customer called"},
    }
