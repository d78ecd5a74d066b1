"""Models through Pydantic AI: one attempt each, no retries of its own, imported when a tier first needs it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx2

from tightship.core.errors import LoadError, TightshipError, UnknownName
from tightship.core.ports import Json, Secrets, Usage
from tightship.core.world import World
from tightship.models._failures import translated
from tightship.models._messages import Names, arguments, from_parts, parameters, to_messages, wrapped
from tightship.models._probabilities import SETTING, token_probability
from tightship.models.conversation import Message, ToolCall
from tightship.models.port import FinishReason, ModelReply, ModelRequest, ModelSettings, OnText
from tightship.models.prices import Counts, Prices
from tightship.models.tiers import Tier

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model as LibraryModel

_KEY_NAMES = {"google": "GOOGLE_API_KEY", "gemini": "GOOGLE_API_KEY", "alibaba": "DASHSCOPE_API_KEY"}
_CONNECT_SECONDS = 5.0
_KEEPALIVE_SECONDS = 30.0


class PydanticAiModel:
    """The models of one tier (models.port.Model).

    Args:
        tier: which.
        world: clock and transport.
        secrets: where the provider's key is.
        prices: what it costs.
    """

    def __init__(self, tier: Tier, world: World, secrets: Secrets, prices: Prices) -> None:
        self._tier = tier
        self._world = world
        self._secrets = secrets
        self._prices = prices
        self._built: dict[str, LibraryModel] = {}
        self._secret: str | None = None
        self._http: httpx2.AsyncClient | None = None
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Import the provider and make its client, off the event loop: the import takes seconds.

        Raises:
            LoadError: the library or the provider's part of it is not installed, or the model is unknown.
        """
        await self._model(self._tier.model)

    async def aclose(self) -> None:
        """Close the client's connections."""
        self._built.clear()
        if self._http is not None:
            client, self._http = self._http, None
            await client.aclose()

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """One attempt (models.port.Model.request)."""
        model = await self._model(request.model or self._tier.model)
        from pydantic_ai.direct import model_request

        native = bool(model.profile.get("supports_json_schema_output"))
        messages, asked = to_messages(request.conversation), parameters(request, native)
        settings: Any = self._settings(request.settings)
        try:
            if on_text is not None:
                response = await self._streamed(model, messages, settings, asked, on_text)
            else:
                response = await model_request(model, messages, model_settings=settings, model_request_parameters=asked)
        except TightshipError:
            raise
        except Exception as error:
            raise translated(error, self._tier.name, self._secret) from error
        return self._reply(request, response)

    async def _streamed(self, model: LibraryModel, messages: Any, settings: Any, asked: Any, on_text: OnText) -> Any:
        from pydantic_ai.direct import model_request_stream
        from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

        stream = model_request_stream(model, messages, model_settings=settings, model_request_parameters=asked)
        async with stream as events:
            async for event in events:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    text = event.part.content
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    text = event.delta.content_delta
                else:
                    continue
                if text:
                    on_text(text)
            return events.get()

    async def _model(self, model_id: str) -> LibraryModel:
        """The library's model; made anew when the secret has changed."""
        key = self._key(model_id)
        async with self._lock:
            if key != self._secret:
                self._built.clear()
                self._secret = key
            made = self._built.get(model_id)
            if made is None:
                client = self._client()
                made = self._built[model_id] = await asyncio.to_thread(_build, self._tier, model_id, key, client)
        return made

    def _key(self, model_id: str) -> str | None:
        """The credential, read now; None leaves it to the provider's own ways (a cloud's identity, say)."""
        stated = self._tier.settings.api_key
        if stated is not None:
            return self._secrets.get(stated.secret)
        if self._tier.settings.base_url is not None:
            return None
        provider = model_id.partition(":")[0].partition("-")[0]
        try:
            return self._secrets.get(_KEY_NAMES.get(provider, f"{provider.upper()}_API_KEY"))
        except UnknownName:
            return None

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            shared = self._world.transport
            self._http = httpx2.AsyncClient(
                transport=None if shared is None else _Shared(shared),
                timeout=httpx2.Timeout(self._tier.settings.timeout, connect=_CONNECT_SECONDS),
                limits=httpx2.Limits(max_connections=200, keepalive_expiry=_KEEPALIVE_SECONDS),
                trust_env=False,
            )
        return self._http

    def _settings(self, asked: ModelSettings) -> dict[str, Any]:
        made: dict[str, Any] = {
            "max_tokens": asked.max_tokens,
            "timeout": asked.timeout,
            "request_timeout": asked.timeout,
            "max_retries": 0,  # attempts are counted, charged and recorded by the door
        }
        if asked.temperature is not None:
            made["temperature"] = asked.temperature
        if asked.seed is not None:
            made["seed"] = asked.seed
        if asked.cache_prompt:
            made["cache"] = True
        if asked.logprobs is not None:
            made[SETTING] = True
        provider = self._tier.model.partition(":")[0].partition("-")[0]
        if self._tier.settings.base_url is None and provider in ("openai", "anthropic"):
            made["service_tier"] = "default"  # dearer tiers of service would break the reserved bound
        if asked.thinking_budget is not None:
            made |= _thinking(provider, asked.thinking_budget)
        return made

    def _reply(self, request: ModelRequest, response: ModelResponse) -> ModelReply:
        message, answer = from_parts(response.parts, Names(request.tools, request.conversation))
        details = response.provider_details or {}
        refusal = details.get("refusal")
        reason: FinishReason = response.finish_reason or "unknown"
        output, problem = _output(request, message, answer, reason)
        usage, estimated = self._usage(request, response)
        meta: dict[str, Json] = {"provider": response.provider_name, "tier": self._tier.name}
        if response.provider_response_id:
            meta["response_id"] = response.provider_response_id
        for name in ("finish_reason", "system_fingerprint", "service_tier"):
            if isinstance(details.get(name), str):
                meta[name] = details[name]
        if estimated:
            meta["usage_estimated"] = True
        meta |= _probability(request, response, message.content)
        if response.state != "complete":
            problem = problem or f"the answer is {response.state}"
        return ModelReply(
            message=message,
            usage=usage,
            finish_reason=reason,
            model=response.model_name or self._tier.model,
            output=output,
            refusal=refusal if isinstance(refusal, str) else None,
            problem=problem,
            meta=meta,
        )

    def _usage(self, request: ModelRequest, response: ModelResponse) -> tuple[Usage, bool]:
        """Tokens and cost; an answer without usage counts as the most that it can have cost."""
        used, now = response.usage, self._world.clock.now()
        if used.unmeasured_requests or not (used.input_tokens or used.output_tokens):
            return self._prices.bound(self._tier, request, now), True
        counts = Counts(used.input_tokens, used.output_tokens, used.cache_read_tokens, used.cache_write_tokens)
        cost = self._prices.cost(self._tier, counts, now)
        return Usage(cost, counts.tokens_in, counts.tokens_out, counts.cached_in), False


class _Shared(httpx2.AsyncBaseTransport):
    """A transport of the world: closing one client must not close it for the others."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._inner.handle_async_request(request)


def _build(tier: Tier, model_id: str, key: str | None, client: httpx2.AsyncClient) -> LibraryModel:
    """The library's model; imports the provider (seconds for some), so never on the event loop."""
    where = f"tier {tier.name}"
    try:
        from pydantic_ai.exceptions import UserError
        from pydantic_ai.models import infer_model
        from pydantic_ai.providers import infer_provider_class
    except ImportError:
        raise LoadError(f"{where}: Pydantic AI is not installed", fix="pip install 'tightship[models]'") from None
    provider_name, _, name = model_id.partition(":")
    base_url = tier.settings.base_url

    def provider(kind: str) -> Any:
        made = infer_provider_class(kind)
        given = {"base_url": base_url, "api_key": key, "http_client": client}
        taken = inspect.signature(made.__init__).parameters
        if base_url is not None and "base_url" not in taken:
            raise LoadError(f"{where}: {provider_name} takes no base_url", fix="use openai-chat for compatible servers")
        return made(**{field: value for field, value in given.items() if value is not None and field in taken})

    try:
        if base_url is not None and provider_name in ("openai", "openai-chat", "openai-compatible"):
            from pydantic_ai.models.openai import OpenAIChatModel
            from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

            compatible = OpenAICompatibleProvider(tier.name, base_url=base_url, api_key=key, http_client=client)
            return OpenAIChatModel(name, provider=compatible)
        return infer_model(model_id, provider_factory=provider)
    except ImportError as error:
        raise LoadError(f"{where}: {error}", fix=f"pip install 'tightship[{provider_name}]'") from None
    except (UserError, ValueError) as error:
        text = str(error).replace(key, "[secret]") if key else str(error)
        raise LoadError(f"{where}: {text}", fix="correct the tier in tightship.yaml") from None


def _thinking(provider: str, budget: int) -> dict[str, Any]:
    """A budget of reasoning tokens as the provider takes it: exactly where it takes one, else as an effort."""
    if budget == 0:
        return {"thinking": False}
    if provider == "anthropic":
        return {"anthropic_thinking": {"type": "enabled", "budget_tokens": max(budget, 1024)}}
    if provider == "google":
        return {"google_thinking_config": {"thinking_budget": budget}}
    efforts = ((1024, "minimal"), (4096, "low"), (16_384, "medium"))
    return {"thinking": next((effort for most, effort in efforts if budget <= most), "high")}


def _probability(request: ModelRequest, response: ModelResponse, text: str) -> dict[str, Json]:
    """How probable the answer was, where that was asked for and the provider says it."""
    field = request.settings.logprobs
    if field is None or not text:
        return {}
    tokens: list[Any] = (response.provider_details or {}).get("logprobs") or []
    for part in response.parts:
        if not tokens and part.part_kind == "text":
            tokens = [*(part.provider_details or {}).get("logprobs", ())]
    found = token_probability(tokens, text, field)
    return {} if found is None else {"probability": round(found[0], 9), "tokens": found[1]}


def _output(
    request: ModelRequest, message: Message, answer: ToolCall | None, reason: FinishReason
) -> tuple[Json, str | None]:
    """The structured answer, and what is wrong with the reply."""
    malformed = next((call for call in message.calls if call.args is None), None)
    if malformed is not None:
        return None, f"the arguments of {malformed.name} are no JSON object"
    cut = "the answer was cut off at max_tokens" if reason == "length" else None
    if request.output_schema is None:
        return None, cut
    _, inside = wrapped(request.output_schema)
    value: Mapping[str, Json] | None = None
    if answer is not None:
        value = answer.args
    elif message.calls:
        return None, cut
    elif message.content:
        value = arguments(message.content)[0]
    if value is None:
        return None, cut or "the answer is no JSON object"
    if not inside:
        return dict(value), cut
    if "value" not in value:
        return None, cut or "the answer has no `value`"
    return value["value"], cut
