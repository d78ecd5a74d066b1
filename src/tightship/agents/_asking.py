"""One request at a model as an effect of a turn, chained to the requests before it, and the fall-back to other tiers.

A conversation is stored as a chain, so that n turns cost O(n). The entry of a request names the effect that it
continues (`after`), whether that effect's outcome is the next message (`replied`), and the messages that come then
(`said`). The conversation of an effect is that of `after`, its reply where it says so, and what was said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tightship.agents.context import AgentContext
from tightship.controls.budgets import Amount
from tightship.core import kinds
from tightship.core.errors import FormatMismatch, InvalidArguments, Unavailable
from tightship.core.ports import FREE, Json, Reply, Request, ToolSpec
from tightship.effects.call import Call
from tightship.effects.journal import Body
from tightship.models.conversation import Conversation, Message
from tightship.models.port import ModelReply, ModelRequest, OnText
from tightship.models.prices import Counted
from tightship.models.service import Models

PROBABILITY: Final = ("probability", "tokens")
_KEPT: Final = (
    "provider",
    "response_id",
    "system_fingerprint",
    "service_tier",
    "usage_estimated",
    "rehearsal",
    *PROBABILITY,
)
"""What a provider says of an answer that its entry keeps, beside the model's version and the finish reason."""
_SETTINGS: Final = ("temperature", "seed", "thinking_budget", "logprobs")
_STATE: Final = "asked"


class ModelTool:
    """One request at one tier, in the form that the door performs (core.ports.Tool)."""

    def __init__(self, models: Models, request: ModelRequest, on_text: OnText | None = None) -> None:
        self._models = models
        self._request = request
        self._on_text = on_text
        self._spec = ToolSpec(f"model.{request.tier}", effect="model", timeout=request.settings.timeout + 1)

    @property
    def spec(self) -> ToolSpec:
        """A contract without a schema: what goes in and out is a conversation."""
        return self._spec

    async def perform(self, request: Request) -> Reply:
        """One attempt (models.port.Model.request)."""
        settings = self._request.settings
        left = self._models.left(request.not_after)
        asked = replace(self._request, settings=replace(settings, timeout=min(settings.timeout, left)))
        reply = await self._models.request(asked, self._on_text)
        value = reply.message.as_json()
        for name in ("output", "refusal", "problem"):
            if getattr(reply, name) is not None:
                value[name] = getattr(reply, name)
        meta: dict[str, Json] = {"model": reply.model}
        if reply.finish_reason != "stop":
            meta["finish_reason"] = reply.finish_reason
        meta |= {name: reply.meta[name] for name in _KEPT if reply.meta.get(name) is not None}
        return Reply(value, reply.usage, meta)

    async def lookup(self, request: Request) -> Reply | None:
        """An answer that was lost cannot be looked up."""
        return None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was answered: its effect, the model's message, and the tokens that the tier counted going in."""

    request: ModelRequest
    key: str
    reply: Message
    tokens: int


class Asker:
    """Asks models on behalf of one task of a turn.

    What was asked before is known by task, as keys are: of its own requests, and of those that were made before the
    task was forked. So a replay chains every request to the same one, however the tasks of a turn overtake each other.
    """

    def __init__(self, ctx: AgentContext, models: Models) -> None:
        self.models = models
        self._ctx = ctx
        self._asked: dict[str, dict[int, _Asked]] = ctx.turn.state.setdefault(_STATE, {})

    async def ask(self, request: ModelRequest, on_text: OnText | None = None) -> tuple[ModelReply, ModelRequest]:
        """The reply of the request's tier, or of the next one that gives any; and the request as it was made there.

        Raises:
            WorkException, InvalidArguments: no tier answered; this is the last one's. Signal: halted, over budget.
        """
        while True:
            try:
                return await self._once(request, on_text), request
            except (Unavailable, FormatMismatch, InvalidArguments):
                following = self.models.next_tier(request.tier)
                if following is None or not await self._may_fall_back(request.tier, following.name):
                    raise
                request = self.at_tier(request, following.name)

    async def _may_fall_back(self, tier: str, following: str) -> bool:
        """Whether the run's retries allow to ask another tier; recorded once, so that a replay goes the same way."""
        session, key = self._ctx.turn.session, self._ctx.next_key("fallback")
        recorded = session.journal.notes.get(key)
        if recorded is None:
            recorded = dict[str, Any](type="fallback", tier=tier, next=following)
            if session.limits.may_retry(key):
                recorded["again"] = True
            await session.journal.record(kinds.NOTE, key, recorded)
        return bool(recorded.get("again"))

    async def note(self, type: str, fields: Mapping[str, Json]) -> None:
        """Record something worth seeing, once, also over replays."""
        journal, key = self._ctx.turn.session.journal, self._ctx.next_key("note")
        if key not in journal.notes:
            await journal.record(kinds.NOTE, key, {"type": type, "agent": self._ctx.agent, **fields})

    def at_tier(self, request: ModelRequest, tier: str) -> ModelRequest:
        """The same request at another tier, asked the way that tier is."""
        settings = self.models.tiers.get(tier).model_settings()
        return replace(request, tier=tier, settings=replace(settings, logprobs=request.settings.logprobs))

    async def _once(self, request: ModelRequest, on_text: OnText | None) -> ModelReply:
        ctx, turn = self._ctx, self._ctx.turn
        journal = turn.session.journal
        before, said = self._before(request.conversation)
        replied = before is not None and bool(said) and said[0] == before.reply
        key, ceiling = ctx.next_key("model"), Amount()
        recorded = key in journal.effects
        if not recorded:
            await self.models.ready(request.tier)
            bound = self.models.bound(request, _counted(before, request))
            ceiling = Amount(bound.usd, bound.tokens)
        listener = None if on_text is None else _Listener(on_text)
        tool = ModelTool(self.models, request, listener)
        value = await ctx.perform(
            Call(
                key=key,
                tool=tool,
                cls="model",
                agent=turn.agent,
                args=_arguments(request),
                declared=turn.declared | {tool.spec.name},
                task=f"agent:{turn.agent}",
                deadline=turn.deadline,
                ceiling=ceiling,
                after="" if before is None else before.key,
                replied=replied,
                said=tuple(journal.seal(message.as_json())[0] for message in said[replied:]),
            )
        )
        if listener is not None and listener.error is not None:
            raise listener.error
        body = journal.effects[key]
        if not recorded:
            await self._look_at_version(request.tier, key, body.get("meta", {}))
        asked = _Asked(request, key, Message.from_json(value), _measured(body, before, request))
        self._asked.setdefault(ctx.key, {})[id(request.conversation)] = asked
        return _reply(asked.reply, value, body.get("meta", {}))

    async def _look_at_version(self, tier: str, key: str, meta: Mapping[str, Any]) -> None:
        """Note a version that has changed with no change of ours (models.versions)."""
        session, versions = self._ctx.turn.session, self._ctx.turn.session.shared.versions
        if versions is None or meta.get("rehearsal"):
            return
        asked, reported = self.models.tiers.get(tier).settings.model, str(meta.get("model", ""))
        was = await versions.saw(tier, asked, reported, session.facts.id)
        if was:
            told = {"type": "model.changed", "tier": tier, "asked": asked, "was": was, "model": reported}
            await session.journal.record(kinds.NOTE, f"{key}/version", told)

    def _before(self, conversation: Conversation) -> tuple[_Asked | None, list[Message]]:
        """The request that this conversation grew from, and the messages since."""
        said: list[Message] = []
        found: _Asked | None = None
        for node in conversation.nodes():
            found = self._known(node)
            if found is not None:
                break
            assert node.message is not None
            said.append(node.message)
        said.reverse()
        return found, said

    def _known(self, node: Conversation) -> _Asked | None:
        path, root = self._ctx.key, self._ctx.turn.key
        while True:
            found = self._asked.get(path, {}).get(id(node))
            if found is not None or path == root:
                return found
            path = path.rsplit("/", 2)[0]  # the task that this one was forked from


class _Listener:
    """Hands text on as it comes. What the agent's code raises there is raised once the answer, paid for, is kept."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self.error: Exception | None = None

    def __call__(self, text: str) -> None:
        if self.error is None:
            try:
                self._on_text(text)
            except Exception as error:
                self.error = error


def _arguments(request: ModelRequest) -> dict[str, Json]:
    """What decides the answer beside the conversation, as the entry names it."""
    settings = request.settings
    args: dict[str, Json] = {
        "tier": request.tier,
        "tools": [spec.name for spec in request.tools],
        "max_tokens": settings.max_tokens,
    }
    if request.output_schema is not None:
        args["output"] = dict(request.output_schema)
    return args | {name: getattr(settings, name) for name in _SETTINGS if getattr(settings, name) is not None}


def _alike(first: ModelRequest, second: ModelRequest) -> bool:
    """Whether a tier counts the same beside the conversation."""
    return (first.tier, first.model, first.tools, first.output_schema) == (
        second.tier,
        second.model,
        second.tools,
        second.output_schema,
    )


def _counted(before: _Asked | None, request: ModelRequest) -> Counted | None:
    if before is None or not before.tokens or not _alike(before.request, request):
        return None
    return Counted(before.request.conversation, before.tokens)


def _measured(body: Body, before: _Asked | None, request: ModelRequest) -> int:
    """The input tokens that the tier counted, never fewer than of the part before it; 0 when it did not count."""
    if body.get("meta", {}).get("usage_estimated"):
        return 0
    earlier = before.tokens if before is not None and _alike(before.request, request) else 0
    return max(int(body.get("tokens_in", 0)), earlier)


def _reply(message: Message, value: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelReply:
    return ModelReply(
        message=message,
        usage=FREE,  # charged by the door
        finish_reason=meta.get("finish_reason", "stop"),
        model=meta.get("model", ""),
        output=value.get("output"),
        refusal=value.get("refusal"),
        problem=value.get("problem"),
        meta=meta,
    )
