"""Tiers and prices: every cost is known beforehand as a bound, and none exceeds it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.connectors.secrets import EnvironmentSecrets
from tightship.core.errors import LoadError, UnknownName
from tightship.core.ports import FREE, ToolSpec
from tightship.core.world import World
from tightship.models import Conversation, Message, ModelRequest, Models, ModelSettings, Prices, RehearsalModel, Tiers
from tightship.models.prices import Counts, schema_bound, tokens_in_bound

NOW = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC).timestamp()
STATED = {
    "input": "3",
    "output": "15",
    "cached_input": "0.3",
    "cache_write": "3.75",
    "source": "a page",
    "date": "2026-10-01",
}


def tiers(**models: Any) -> Tiers:
    return Tiers({name: raw if isinstance(raw, dict) else {"model": raw} for name, raw in models.items()})


# --- tiers -----------------------------------------------------------------------------------------------------------


def test_tiers_lead_to_the_next() -> None:
    made = tiers(cheap={"model": "openai:gpt-5-mini", "next": "strong", "max_tokens": 100}, strong="openai:gpt-5")
    following = made.next_tier("cheap")
    assert following is not None and following.model == "openai:gpt-5"
    assert made.next_tier("strong") is None
    assert made.get("cheap").model_settings().max_tokens == 100
    assert made.names() == ["cheap", "strong"]
    with pytest.raises(UnknownName, match="cheap, strong"):
        made.get("medium")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"a": {"model": "gpt-5"}}, "provider:model"),
        ({"a": {}}, r"tiers\.a\.model"),
        ({"a": {"model": "openai:x", "colour": 1}}, r"tiers\.a\.colour"),
        ({"a": {"model": "openai:x", "max_tokens": 0}}, "max_tokens"),
        ({"a": {"model": "openai:x", "next": "b"}}, "no tier"),
        ({"a": {"model": "openai:x", "next": "a"}}, "circle: a -> a"),
        ({"a": {"model": "openai:x", "next": "b"}, "b": {"model": "openai:y", "next": "a"}}, "circle"),
        ({"a": {"model": "openai:x", "base_url": "http://127.0.0.1:1"}}, "price"),
        ({"a": {"model": "openai:x", "price": {"input": 1, "output": 1}}}, "source"),
        ({"a": {"model": "openai:x", "price": {**STATED, "input": -1}}}, "input"),
        ({"a": "openai:x"}, r"tiers\.a"),
    ],
    ids=str,
)
def test_tiers_that_are_wrong_name_the_field(raw: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadError, match=says) as caught:
        Tiers(raw, file="tightship.yaml")
    assert caught.value.file == "tightship.yaml"


# --- prices ----------------------------------------------------------------------------------------------------------


def test_a_stated_price_is_used_to_the_last_digit() -> None:
    tier = tiers(a={"model": "openai:whatever", "price": STATED}).get("a")
    counts = Counts(tokens_in=1000, tokens_out=10, cached_in=400, cache_write=100)
    assert Prices().cost(tier, counts, NOW) == 500 * 3000 + 400 * 300 + 100 * 3750 + 10 * 15_000
    known = Prices().check(tier)
    assert (known.input, known.output, known.source, known.date) == (Decimal(3), Decimal(15), "a page", "2026-10-01")


def test_a_free_model_is_stated_as_such() -> None:
    tier = tiers(a={"model": "openai-chat:mine", "base_url": "http://127.0.0.1:1/v1", "price": "free"}).get("a")
    assert Prices().cost(tier, Counts(10**6, 10**6), NOW) == 0
    assert Prices().bound_of(tier, 10**6, 10**6, NOW) == 0


def test_a_listed_price_is_the_list_s() -> None:
    from genai_prices import Usage, calc_price

    for model in (
        "openai:gpt-5-mini",
        "anthropic:claude-sonnet-4-5",
        "google:gemini-2.5-pro",
        "openai-responses:gpt-5",
    ):
        tier = tiers(a=model).get("a")
        listed = calc_price(
            Usage(input_tokens=300_000, output_tokens=1000, cache_read_tokens=100),
            model.partition(":")[2],
            provider_id=model.partition(":")[0].removesuffix("-responses"),
            genai_request_timestamp=dt.datetime.fromtimestamp(NOW, dt.UTC),
        )
        assert Prices().cost(tier, Counts(300_000, 1000, 100), NOW) == int(listed.total_price * 10**9)
        assert Prices().check(tier).source.startswith("genai-prices")


def test_a_price_is_that_of_the_date_and_the_hour() -> None:
    tier = tiers(a="deepseek:deepseek-chat").get("a")
    day = dt.datetime(2025, 6, 1, 12, tzinfo=dt.UTC).timestamp()
    night = dt.datetime(2025, 6, 1, 20, tzinfo=dt.UTC).timestamp()
    dear, cheap = (Prices().cost(tier, Counts(10**6, 0), at) for at in (day, night))
    assert dear > cheap
    assert Prices().bound_of(tier, 10**6, 0, night) >= dear


def test_a_model_that_no_list_knows_needs_a_price() -> None:
    tier = tiers(a="openai:gpt-of-our-own").get("a")
    for work in (
        lambda: Prices().check(tier),
        lambda: Prices().cost(tier, Counts(1, 1), NOW),
        lambda: Prices().bound_of(tier, 1, 1, NOW),
    ):
        with pytest.raises(LoadError, match="gpt-of-our-own") as caught:
            work()
        assert "price" in (caught.value.fix or "")


def _listed_models() -> list[str]:
    from genai_prices.data_snapshot import get_snapshot

    found: list[str] = []
    for provider in get_snapshot().providers:
        if provider.id in ("openai", "anthropic", "google", "mistral", "groq", "deepseek", "x-ai", "cohere", "alibaba"):
            found += [f"{provider.id}:{model.id}" for model in provider.models]
    return found


TEXT_MODELS = {"openai:gpt-5-mini", "anthropic:claude-sonnet-4-5", "google:gemini-2.5-pro", "deepseek:deepseek-chat"}
counts = st.integers(0, 2_000_000)


@settings(max_examples=400, deadline=None)
@given(st.data(), counts, counts, st.floats(0, 1), st.floats(0, 1), st.integers(0, 86_400))
def test_no_attempt_costs_more_than_its_bound(
    data: st.DataObject, tokens_in: int, tokens_out: int, read: float, written: float, second: int
) -> None:
    tier = tiers(a=data.draw(st.sampled_from(_listed_models()))).get("a")
    cached = int(tokens_in * read)
    count = Counts(tokens_in, tokens_out, cached, int((tokens_in - cached) * written))
    at = NOW + second
    try:
        # Reserved up to an hour before it is settled.
        bound = Prices().bound_of(tier, tokens_in, tokens_out, at - 3600)
    except LoadError:
        assert tier.model not in TEXT_MODELS
        return
    assert Prices().cost(tier, count, at) <= bound


# --- the bound of a request ------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=200), max_size=5), st.text(max_size=200), st.integers(0, 3))
def test_a_request_has_fewer_tokens_than_its_bound(texts: list[str], described: str, fields: int) -> None:
    said = Conversation.of(Message.user(text) for text in texts)
    schema = {
        "type": "object",
        "properties": {f"f{n}": {"type": "string", "description": described} for n in range(fields)},
    }
    request = ModelRequest(said, "a", (ToolSpec("a.b", description=described, input_schema=schema),), schema)
    least = sum(len(text.encode()) for text in texts) + len(described.encode()) * (1 + 2 * fields)
    assert tokens_in_bound(request) > least


def test_references_that_a_provider_puts_in_place_are_counted() -> None:
    big = {"type": "object", "description": "x" * 1000}
    schema = {
        "type": "object",
        "properties": {name: {"$ref": "#/$defs/Big"} for name in "abcdefgh"},
        "$defs": {"Big": big, "Loop": {"properties": {"l": {"$ref": "#/$defs/Loop"}, "m": {"$ref": "#/$defs/Loop"}}}},
    }
    assert schema_bound(schema) > 8 * 1000
    assert schema_bound({**schema, "properties": {"l": {"$ref": "#/$defs/Loop"}}}) < 10**7


def test_the_bound_covers_the_declared_answer_and_its_reasoning() -> None:
    made = Models(tiers(a={"model": "openai:x", "price": STATED}), World(), EnvironmentSecrets(environment={}))
    said = Conversation.of([Message.user("hello")])
    bound = made.bound(ModelRequest(said, "a", settings=ModelSettings(max_tokens=1000, thinking_budget=500)))
    assert bound.tokens_out == 1500
    assert bound.usd == bound.tokens_in * 3750 + 1500 * 15_000


async def test_a_rehearsal_costs_nothing_and_asks_no_provider() -> None:
    made = Models(tiers(a="openai:gpt-5"), World(), EnvironmentSecrets(environment={}), instead=RehearsalModel())
    await made.load()
    request = ModelRequest(Conversation(), "a")
    assert made.bound(request) == FREE
    assert (await made.request(request)).usage == FREE
    await made.aclose()
