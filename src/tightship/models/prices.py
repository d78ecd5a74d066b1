"""What models cost: the price list that ships with Pydantic AI (offline), and what a workspace states instead.

Costs are nano-dollars. A bound is made before a request from its size in bytes: a token of the byte-level
vocabularies in use stands for one byte at the least (Sennrich et al. 2016, "Neural Machine Translation of Rare Words
with Subword Units"; byte-level since GPT-2), so the bytes of what is sent, with a margin for the provider's own
framing, are never fewer than the tokens that are charged. A part of a conversation that the same tier has counted in
an earlier request of it counts as that: messages are framed by tokens of their own, so what comes later does not
change the count of what stands before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from tightship.core.errors import LoadError
from tightship.core.money import NANO, to_nano
from tightship.core.ports import Usage
from tightship.models.conversation import Conversation
from tightship.models.port import ModelRequest
from tightship.models.tiers import PriceSettings, Tier

_MILLION = 1_000_000
_MESSAGE_TOKENS = 16
_TOOL_TOKENS = 64
# Providers put a prompt of their own before tool definitions; the largest stated one is below 1,000 tokens.
_TOOLS_TOKENS = 1024
_BASE_TOKENS = 64
_MAX_SCHEMA_DEPTH = 12
# A price may change between the reservation and the settlement.
_AHEAD = timedelta(days=1)

_IN_KEYS = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "input_mchars")
_OUT_KEYS = ("output_mtok", "output_reasoning_mtok", "output_citation_mtok")


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one attempt. `tokens_in` includes what was read from and written to the provider's cache."""

    tokens_in: int
    tokens_out: int
    cached_in: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """A conversation whose input tokens the tier itself has counted, with the same tools and the same output schema."""

    conversation: Conversation
    tokens: int


@dataclass(frozen=True, slots=True)
class PriceInfo:
    """A price with its origin, for people: USD for a million tokens."""

    input: Decimal
    output: Decimal
    source: str
    date: str


class Prices:
    """What the tiers cost."""

    def check(self, tier: Tier) -> PriceInfo:
        """The tier's price now.

        Raises:
            LoadError: neither the price list nor the workspace knows it, so no budget could hold.
        """
        stated = tier.settings.price
        if stated is not None:
            return PriceInfo(stated.input, stated.output, stated.source, stated.date.isoformat())
        rate_in, rate_out, _ = _highest(tier, datetime.now(UTC))
        from importlib.metadata import version

        return PriceInfo(rate_in, rate_out, f"genai-prices {version('genai-prices')}", "")

    def cost(self, tier: Tier, counts: Counts, at: float) -> int:
        """The cost of an attempt, at the price of its date.

        Args:
            tier: the tier that answered.
            counts: its tokens.
            at: store time (s).

        Raises:
            LoadError: the tier has no known price.
        """
        stated = tier.settings.price
        if stated is not None:
            return to_nano(_stated_cost(stated, counts))
        from genai_prices import Usage as ListedUsage
        from genai_prices import calc_price

        provider, model = _names(tier)
        usage = ListedUsage(
            input_tokens=counts.tokens_in,
            output_tokens=counts.tokens_out,
            cache_read_tokens=counts.cached_in,
            cache_write_tokens=counts.cache_write,
        )
        try:
            found = calc_price(
                usage, model, provider_id=provider, genai_request_timestamp=datetime.fromtimestamp(at, UTC)
            )
        except LookupError:
            raise _unpriced(tier) from None
        return to_nano(found.total_price)

    def bound(self, tier: Tier, request: ModelRequest, at: float, counted: Counted | None = None) -> Usage:
        """The most that an attempt can cost: what a budget reserves before it is made.

        Args:
            tier: the tier that is asked.
            request: what is asked.
            at: store time (s).
            counted: the longest part of the request's conversation that this tier has counted.
        """
        tokens_in = tokens_in_bound(request, counted)
        tokens_out = request.settings.max_tokens + (request.settings.thinking_budget or 0)
        return Usage(self.bound_of(tier, tokens_in, tokens_out, at), tokens_in, tokens_out)

    def bound_of(self, tier: Tier, tokens_in: int, tokens_out: int, at: float) -> int:
        """The most that so many tokens can cost with any share of them cached, in any price band."""
        stated = tier.settings.price
        if stated is not None:
            rates = [stated.input, stated.cached_input or Decimal(0), stated.cache_write or Decimal(0)]
            rate_in, rate_out, base = max(rates), stated.output, Decimal(0)
        else:
            rate_in, rate_out, base = _highest(tier, datetime.fromtimestamp(at, UTC))
        usd = (rate_in * tokens_in + rate_out * tokens_out) / _MILLION + base
        return math.ceil(usd * NANO)


def _stated_cost(price: PriceSettings, counts: Counts) -> Decimal:
    fresh = counts.tokens_in - counts.cached_in - counts.cache_write
    cached = price.input if price.cached_input is None else price.cached_input
    write = price.input if price.cache_write is None else price.cache_write
    usd_in = price.input * fresh + cached * counts.cached_in + write * counts.cache_write
    return (usd_in + price.output * counts.tokens_out) / _MILLION


def _names(tier: Tier) -> tuple[str, str]:
    provider, _, model = tier.model.partition(":")
    provider = provider.removeprefix("gateway/")
    for suffix in ("-chat", "-responses", "-cloud"):
        provider = provider.removesuffix(suffix)
    return provider, model


def _unpriced(tier: Tier) -> LoadError:
    return LoadError(
        f"the price list does not know what {tier.model!r} costs (tier {tier.name!r})",
        fix="state `price: {input, output, source, as_of}` in USD for a million tokens, or `price: free`",
    )


def _listed(tier: Tier) -> Any:
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        raise LoadError(
            f"the price list is not installed (tier {tier.name!r})",
            fix="pip install 'tightship[models]', or state the tier's price",
        ) from None
    provider, model = _names(tier)
    try:
        return get_snapshot().find_provider_model(model, None, provider, None)[1]
    except LookupError:
        raise _unpriced(tier) from None


def _highest(tier: Tier, at: datetime) -> tuple[Decimal, Decimal, Decimal]:
    """The highest rate in and out (USD for a million tokens) and the price of a call, over all bands and hours."""
    sets = list(_in_force(_listed(tier), at))
    rates_in = [rate for prices in sets for key in _IN_KEYS for rate in _rates(prices, key)]
    rates_out = [rate for prices in sets for key in _OUT_KEYS for rate in _rates(prices, key)]
    if not rates_in or not rates_out:
        raise _unpriced(tier)  # listed without a price for text, in or out: it is not known to be free
    calls = max((rate for prices in sets for rate in _rates(prices, "requests_kcount")), default=Decimal(0))
    return max(rates_in), max(rates_out), calls / 1000


def _in_force(model: Any, at: datetime) -> Iterator[Any]:
    """The price sets that may apply now or within a day: those of any hour, and the dated one in force."""
    if not isinstance(model.prices, list):
        yield model.prices
        return
    from genai_prices.types import TimeOfDateConstraint

    for conditional in model.prices:
        if isinstance(conditional.constraint, TimeOfDateConstraint):
            yield conditional.prices
    yield model.get_prices(at)
    yield model.get_prices(at + _AHEAD)
    yield model.prices[0].prices


def _rates(prices: Any, key: str) -> Iterator[Decimal]:
    price = getattr(prices, key, None)
    if price is None:
        return
    if isinstance(price, Decimal):
        yield price
        return
    yield price.base
    for tier in price.tiers:
        yield tier.price


def tokens_in_bound(request: ModelRequest, counted: Counted | None = None) -> int:
    """A number of tokens that the request's input cannot exceed."""
    size = _BASE_TOKENS
    for node in request.conversation.nodes():
        if counted is not None and node is counted.conversation:
            return size + counted.tokens
        assert node.message is not None
        size += len(orjson.dumps(node.message.as_json())) + _MESSAGE_TOKENS
    if request.tools or request.output_schema is not None:
        size += _TOOLS_TOKENS
    for tool in request.tools:
        size += _TOOL_TOKENS + len(tool.name) + len(tool.description.encode()) + schema_bound(tool.input_schema)
    if request.output_schema is not None:
        size += _TOOL_TOKENS + schema_bound(request.output_schema)
    return size


def schema_bound(schema: Mapping[str, Any]) -> int:
    """Bytes of a schema as a provider may write it: indented, or with its references put in place."""
    written = len(orjson.dumps(schema, option=orjson.OPT_INDENT_2))
    definitions = schema.get("$defs")
    if not isinstance(definitions, Mapping):
        return written
    sizes: dict[tuple[str, int], int] = {}
    return written + _inlined(schema, definitions, _MAX_SCHEMA_DEPTH, sizes)


def _inlined(node: Any, definitions: Mapping[str, Any], depth: int, sizes: dict[tuple[str, int], int]) -> int:
    """Bytes with references put in place to a depth; the same definition at the same depth is counted once."""
    if isinstance(node, Mapping):
        ref = node.get("$ref")
        name = ref.removeprefix("#/$defs/") if isinstance(ref, str) else None
        extra = 0
        if name is not None and name in definitions and depth > 0:
            key = (name, depth)
            if key not in sizes:
                sizes[key] = _inlined(definitions[name], definitions, depth - 1, sizes)
            extra = sizes[key]
        parts = ((key, part) for key, part in node.items() if key != "$defs")
        return extra + 2 + sum(len(str(key)) + 4 + _inlined(part, definitions, depth, sizes) for key, part in parts)
    if isinstance(node, list | tuple):
        return 2 + sum(1 + _inlined(part, definitions, depth, sizes) for part in node)
    return len(orjson.dumps(node))
