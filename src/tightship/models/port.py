"""One attempt at a model, as this package asks for it and hands it back, whoever the provider is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson

from tightship.core.ports import Json, ToolSpec, Usage
from tightship.models.conversation import Conversation, Message, ToolCall

FinishReason = Literal["stop", "length", "content_filter", "tool_call", "error", "unknown"]


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How to ask.

    Attributes:
        max_tokens: the most tokens of the answer, reasoning included; always sent, so that the cost is bounded.
        temperature: randomness; None is the provider's default.
        seed: for providers that honour one.
        thinking_budget: the most tokens of reasoning; 0 none, None the provider's default.
        timeout: seconds for the whole attempt.
        cache_prompt: ask the provider to cache the prompt's stable part.
        logprobs: ask for the probabilities of tokens, of this field of the answer; empty: of all of it, None: of none.
    """

    max_tokens: int = 4096
    temperature: float | None = None
    seed: int | None = None
    thinking_budget: int | None = None
    timeout: float = 120.0
    cache_prompt: bool = False
    logprobs: str | None = None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One attempt.

    Attributes:
        conversation: what was said.
        tier: the tier that answers.
        tools: the tools that the model may ask for.
        output_schema: JSON Schema of the answer, or None for text.
        settings: how to ask.
        agent: who asks.
        model: a model id instead of the tier's own (a pinned version).
    """

    conversation: Conversation
    tier: str
    tools: tuple[ToolSpec, ...] = ()
    output_schema: Mapping[str, Any] | None = None
    settings: ModelSettings = field(default_factory=ModelSettings)
    agent: str = ""
    model: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the answer (hex): the same request has the same digest."""
        settings = self.settings
        parts = {
            "conversation": self.conversation.digest,
            "tier": self.tier,
            "model": self.model,
            "tools": [[tool.name, tool.description, tool.input_schema] for tool in self.tools],
            "output": self.output_schema,
            "settings": [settings.max_tokens, settings.temperature, settings.seed, settings.thinking_budget],
        }
        if settings.logprobs is not None:
            parts["logprobs"] = settings.logprobs
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What came back; nothing of it is hidden.

    Attributes:
        message: the assistant's message, as the conversation goes on with it.
        usage: cost in nano-dollars and tokens.
        finish_reason: why the model stopped; `length` means that the answer is cut off.
        model: the model as the provider names it (a dated version, as a rule).
        output: the structured answer where one was asked for and given.
        refusal: what the model said when it refused.
        problem: what is wrong with the answer (no JSON, cut off, malformed arguments), or None.
        meta: raw facts: provider, response id, fingerprint, whether the usage was estimated, …; where it was asked
            for and given, the `probability` of the answer or field, and of how many `tokens` (models._probabilities).
    """

    message: Message
    usage: Usage
    finish_reason: FinishReason
    model: str
    output: Json = None
    refusal: str | None = None
    problem: str | None = None
    meta: Mapping[str, Json] = field(default_factory=dict[str, Json])

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that the model asks for, in the order of its reply."""
        return self.message.calls

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.message.content

    @property
    def cost(self) -> int:
        """Nano-dollars."""
        return self.usage.usd

    def as_json(self) -> dict[str, Json]:
        """The reply as JSON, for the ledger."""
        usage = self.usage
        return {
            "message": self.message.as_json(),
            "usage": [usage.usd, usage.tokens_in, usage.tokens_out, usage.cached_in],
            "finish_reason": self.finish_reason,
            "model": self.model,
            "output": self.output,
            "refusal": self.refusal,
            "problem": self.problem,
            "meta": dict(self.meta),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ModelReply:
        """The reply that `as_json` wrote."""
        return cls(
            message=Message.from_json(raw["message"]),
            usage=Usage(*raw["usage"]),
            finish_reason=raw["finish_reason"],
            model=raw["model"],
            output=raw["output"],
            refusal=raw["refusal"],
            problem=raw["problem"],
            meta=raw["meta"],
        )


OnText = Callable[[str], None]


class Model(Protocol):
    """Something that answers."""

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """One attempt, without retries.

        Args:
            request: what is asked.
            on_text: receives each piece of text as it comes; the answer is streamed when it is given.

        Raises:
            RateLimited: the provider asks for patience (`retry_after` in seconds when it says).
            TimedOut: no whole answer in time.
            Unavailable: the provider does not serve the request now, or does not accept our credentials.
            FormatMismatch: the provider answered with something that is no answer.
            InvalidArguments: the provider refused the request as it is.

        The evidence of these says `sent`: whether the provider may charge for the attempt.
        """
        ...
