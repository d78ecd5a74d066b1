"""One attempt at a model, through Pydantic AI, against a real HTTP server with OpenAI's interface."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import orjson
import pytest
from openai_server import OpenAiServer, Turn, serving

from tightship.connectors.secrets import EnvironmentSecrets
from tightship.core.errors import FormatMismatch, InvalidArguments, LoadError, RateLimited, TimedOut, Unavailable
from tightship.core.ports import ToolSpec
from tightship.core.world import World
from tightship.models import Conversation, Message, ModelReply, ModelRequest, Models, ModelSettings, Tiers, ToolCall

PRICE = {"input": "2.00", "output": "8.00", "cached_input": "0.50", "source": "a test", "date": "2026-01-01"}
SECRET = "key-very-private"
GET = ToolSpec(
    "orders.get",
    description="Read an order.",
    input_schema={"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
)
LIST = ToolSpec("orders.list", input_schema={"type": "object", "properties": {}})
VERDICT = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "urgent": {"type": "boolean"}},
    "required": ["topic", "urgent"],
    "additionalProperties": False,
}


class Desk:
    """The server, and the models of a workspace that reach it."""

    def __init__(self, server: OpenAiServer, models: Models, environment: dict[str, str]) -> None:
        self.server, self.models, self.environment = server, models, environment

    async def ask(self, *said: Message | str, on_text: Any = None, **more: Any) -> ModelReply:
        return await self.models.request(ask(*said, **more), on_text)


def ask(*said: Message | str, **more: Any) -> ModelRequest:
    messages = [Message.user(part) if isinstance(part, str) else part for part in said or ("hello",)]
    more.setdefault("settings", ModelSettings(max_tokens=200, timeout=60))
    return ModelRequest(Conversation.of(messages), "cheap", **more)


@asynccontextmanager
async def desk(**tier: Any) -> AsyncIterator[Desk]:
    server = OpenAiServer()
    async with serving(server) as url:
        settings = {
            "model": "openai-chat:test-model",
            "base_url": url,
            "price": PRICE,
            "api_key": {"secret": "MODEL_KEY"},
            **tier,
        }
        environment = {"MODEL_KEY": SECRET}
        models = Models(Tiers({"cheap": settings}), World(), EnvironmentSecrets(environment=environment))
        try:
            yield Desk(server, models, environment)
        finally:
            await models.aclose()
            gc.collect()


async def test_a_text_answer_with_its_cost_and_the_model_that_gave_it() -> None:
    async with desk() as made:
        made.server.say(Turn("Good morning.", cached=4))
        reply = await made.ask(Message.system("Be brief."), "Say good morning.")
        assert (reply.text, reply.finish_reason, reply.model) == ("Good morning.", "stop", "test-model-2026-01-31")
        usage = reply.usage
        assert usage.cached_in == 4
        fresh = usage.tokens_in - 4
        assert usage.usd == fresh * 2000 + 4 * 500 + usage.tokens_out * 8000
        assert reply.meta["response_id"] == "chatcmpl-1"
        assert reply.problem is None and reply.refusal is None
        sent = made.server.seen[0]
        assert [message["role"] for message in sent["messages"]] == ["system", "user"]
        assert sent.get("max_completion_tokens", sent.get("max_tokens")) == 200
        assert made.server.authorizations == [f"Bearer {SECRET}"]


async def test_what_an_attempt_costs_never_exceeds_what_was_reserved_for_it() -> None:
    async with desk() as made:
        long = "Grüße aus dem Hafen, 港から挨拶。 " * 40
        cases = [
            ask("a"),
            ask(long, tools=(GET, LIST), output_schema=VERDICT),
            ask(*(Message.user(f"message {n}") for n in range(30))),
        ]
        for request in cases:
            made.server.say(Turn("x" * 700))
            reply = await made.models.request(request)
            bound = made.models.bound(request)
            assert reply.usage.tokens_in <= bound.tokens_in
            assert reply.usage.tokens_out <= bound.tokens_out
            assert reply.usage.usd <= bound.usd


TOKENS = [
    ('{"topic', -0.01), ('": "', -0.01), ("bil", -0.2), ('ling"', -0.1), (', "urgent": ', -0.05), ("fal", -0.7), ("se}", 0.0)
]  # fmt: skip
SURE = ModelSettings(max_tokens=200, timeout=60)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("field", "probability", "tokens"),
    [("", math.exp(-1.07 / 7), 7), ("topic", math.exp(-0.3), 2), ("urgent", math.exp(-0.7), 2)],
)
async def test_the_probability_of_an_answer_and_of_a_field_of_it(
    field: str, probability: float, tokens: int, streamed: bool
) -> None:
    async with desk() as made:
        made.server.say(Turn("".join(token for token, _ in TOKENS), tokens=TOKENS))
        asked = replace(SURE, logprobs=field)
        heard: list[str] = []
        reply = await made.ask(
            "sort", settings=asked, output_schema=VERDICT, on_text=heard.append if streamed else None
        )
        assert reply.output == {"topic": "billing", "urgent": False} and reply.problem is None
        assert reply.meta["probability"] == pytest.approx(probability, abs=1e-6)
        assert reply.meta["tokens"] == tokens
        assert made.server.seen[0]["logprobs"] is True
        assert "tools" not in made.server.seen[0]  # tokens of calls have no probabilities
        assert reply.usage.usd <= made.models.bound(ask("sort", settings=asked, output_schema=VERDICT)).usd


async def test_what_a_provider_does_not_say_is_not_made_up() -> None:
    async with desk() as made:
        made.server.say(Turn('{"topic": "billing", "urgent": false}'))
        for field in ("", "topic"):
            reply = await made.ask("sort", settings=replace(SURE, logprobs=field), output_schema=VERDICT)
            assert reply.output is not None and "probability" not in reply.meta
        made.server.say(Turn('{"topic": "billing"}', tokens=[("something else", -0.1)]))
        reply = await made.ask("sort", settings=replace(SURE, logprobs="topic"), output_schema=VERDICT)
        assert "probability" not in reply.meta


async def test_nobody_is_asked_for_probabilities_that_nobody_needs() -> None:
    async with desk() as made:
        made.server.say(Turn("Good morning.", tokens=[("Good morning.", -0.1)]))
        assert "probability" not in (await made.ask("hello")).meta
        assert "logprobs" not in made.server.seen[0]


@pytest.mark.parametrize("streamed", [False, True])
async def test_tool_calls_keep_their_order_their_names_and_their_ids(streamed: bool) -> None:
    async with desk() as made:
        made.server.say(
            Turn(
                "Let me look.",
                calls=[
                    ("orders__get", {"order_id": "O-1"}),
                    ("orders__list", {}),
                    ("orders__get", {"order_id": "O-2"}),
                ],
            ),
            Turn("Done."),
        )
        said = Conversation.of([Message.user("Where are my orders?")])
        texts: list[str] = []
        listen = texts.append if streamed else None
        request = ModelRequest(said, "cheap", tools=(GET, LIST), settings=ModelSettings(max_tokens=100, timeout=60))
        reply = await made.models.request(request, listen)
        assert [(call.id, call.name, call.args) for call in reply.tool_calls] == [
            ("call_0", "orders.get", {"order_id": "O-1"}),
            ("call_1", "orders.list", {}),
            ("call_2", "orders.get", {"order_id": "O-2"}),
        ]
        assert reply.finish_reason == "tool_call"
        assert reply.text == "Let me look."
        assert "".join(texts) == ("Let me look." if streamed else "")
        said = said.append(reply.message)
        for n, call in enumerate(reply.tool_calls):
            said = said.append(Message.tool(call, {"n": n}))
        request = ModelRequest(said, "cheap", tools=(GET, LIST), settings=ModelSettings(max_tokens=100, timeout=60))
        assert (await made.models.request(request)).text == "Done."
        sent = made.server.seen[1]["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "tool"]
        assert [call["function"]["name"] for call in sent[1]["tool_calls"]] == [
            "orders__get",
            "orders__list",
            "orders__get",
        ]
        assert [message["tool_call_id"] for message in sent[2:]] == ["call_0", "call_1", "call_2"]
        assert [message["content"] for message in sent[2:]] == ['{"n":0}', '{"n":1}', '{"n":2}']


async def test_a_stream_says_what_the_whole_answer_says() -> None:
    async with desk() as made:
        made.server.say(Turn("One two three four."))
        whole = await made.ask()
        texts: list[str] = []
        streamed = await made.ask(on_text=texts.append)
        assert len(texts) > 2
        assert "".join(texts) == streamed.text == whole.text
        assert streamed.usage == whole.usage
        assert streamed.finish_reason == whole.finish_reason
        assert streamed.model == whole.model


@pytest.mark.parametrize(
    "schema", [VERDICT, {"type": "array", "items": {"$ref": "#/$defs/V"}, "$defs": {"V": VERDICT}}]
)
async def test_a_structured_answer_in_the_models_own_mode(schema: dict[str, Any]) -> None:
    async with desk() as made:
        value: Any = {"topic": "refund", "urgent": True}
        wrapped = {"value": [value]} if schema["type"] == "array" else value

        made.server.say(Turn(orjson.dumps(wrapped).decode()))
        reply = await made.ask(output_schema=schema)
        sent = made.server.seen[0]
        if not sent.get("response_format"):
            assert sent["tools"][-1]["function"]["name"] == "final_result"
            made.server.say(Turn(calls=[("final_result", wrapped)]))
            reply = await made.ask(output_schema=schema)
        assert reply.output == ([value] if schema["type"] == "array" else value)
        assert reply.tool_calls == ()
        assert reply.problem is None


async def test_a_structured_answer_as_a_tool_call_beside_real_tools() -> None:
    async with desk() as made:
        made.server.say(
            Turn(calls=[("orders__get", {"order_id": "O-1"})]),
            Turn(calls=[("final_result", {"topic": "a", "urgent": False})]),
        )
        first = await made.ask(tools=(GET,), output_schema=VERDICT)
        assert [call.name for call in first.tool_calls] == ["orders.get"]
        assert first.output is None and first.problem is None
        second = await made.ask(tools=(GET,), output_schema=VERDICT)
        assert second.output == {"topic": "a", "urgent": False}
        assert second.tool_calls == ()


@pytest.mark.parametrize(
    ("turn", "reason", "problem"),
    [
        (Turn("not json at all"), "stop", "no JSON"),
        (Turn('{"topic": "re', reason="length"), "length", "cut off"),
        (Turn(calls=[("orders__get", '{"order_id": ')]), "tool_call", "orders.get"),
        (Turn(calls=[("orders__get", "[1]")]), "tool_call", "orders.get"),
    ],
)
async def test_answers_that_are_not_whole_are_shown_as_they_are(turn: Turn, reason: str, problem: str) -> None:
    async with desk() as made:
        made.server.say(turn)
        reply = await made.ask(tools=(GET,), output_schema=VERDICT)
        assert reply.finish_reason == reason
        assert reply.output is None
        assert reply.problem is not None and problem in reply.problem
        assert reply.usage.usd > 0
        if turn.calls:
            assert reply.tool_calls[0].args is None
            assert reply.tool_calls[0].malformed == turn.calls[0][1]


async def test_a_malformed_call_can_be_said_again_with_what_was_wrong() -> None:
    async with desk() as made:
        call = ToolCall("call_0", "orders.get", None, "{broken")
        said = [Message.user("x"), Message.assistant("", [call]), Message.tool(call, "the arguments are no JSON")]
        reply = await made.ask(*said, tools=(GET,))
        assert reply.text == "hello"


async def test_a_tool_that_was_never_given_keeps_its_invented_name() -> None:
    async with desk() as made:
        made.server.say(Turn(calls=[("drop_tables", {})]))
        reply = await made.ask(tools=(GET,))
        assert reply.tool_calls[0].name == "drop_tables"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_truncated_answer_says_so(streamed: bool) -> None:
    async with desk() as made:
        made.server.say(Turn("As I was say", reason="length"))
        reply = await made.ask(on_text=(lambda _: None) if streamed else None)
        assert (reply.finish_reason, reply.text) == ("length", "As I was say")
        assert reply.problem == "the answer was cut off at max_tokens"


async def test_a_refusal_says_so() -> None:
    async with desk() as made:
        made.server.say(Turn(refusal="I will not do that."))
        reply = await made.ask(output_schema=VERDICT)
        assert reply.refusal == "I will not do that."
        assert reply.finish_reason == "content_filter"
        assert reply.output is None
        made.server.say(Turn("", reason="content_filter"))
        assert (await made.ask()).finish_reason == "content_filter"


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_without_usage_counts_as_the_most_it_can_have_cost(streamed: bool) -> None:
    async with desk() as made:
        made.server.say(Turn("hello", usage=False))
        request = ask("hello")
        reply = await made.models.request(request, (lambda _: None) if streamed else None)
        assert reply.usage == made.models.bound(request)
        assert reply.meta["usage_estimated"] is True


@pytest.mark.parametrize(
    ("turn", "kind", "sent"),
    [
        (Turn(status=429, headers={"Retry-After": "7"}), RateLimited, False),
        (Turn(status=500), Unavailable, True),
        (Turn(status=502), Unavailable, True),
        (Turn(status=503, headers={"Retry-After": "7"}), Unavailable, True),
        (Turn(status=529), Unavailable, True),
        (Turn(status=401), Unavailable, False),
        (Turn(status=402), Unavailable, False),
        (Turn(status=404), Unavailable, False),
        (Turn(status=400), InvalidArguments, None),
        (Turn(status=422), InvalidArguments, None),
        (Turn(body=b"<html>not an answer</html>"), FormatMismatch, True),
        (Turn(body=b'{"choices": []}'), FormatMismatch, True),
        (Turn(body=b"[]"), FormatMismatch, True),
        (Turn(body=b""), FormatMismatch, True),
    ],
    ids=lambda value: str(value.status) + str(value.body or "") if isinstance(value, Turn) else None,
)
async def test_failures_of_the_provider_are_told_apart_and_never_retried(turn: Turn, kind: Any, sent: Any) -> None:
    async with desk() as made:
        made.server.say(turn)
        with pytest.raises(kind) as caught:
            await made.ask()
        assert type(caught.value) is kind
        assert len(made.server.seen) == 1
        if sent is not None:
            assert caught.value.evidence["sent"] is sent
        if turn.headers:
            assert caught.value.retry_after == 7
        assert SECRET not in f"{caught.value}"
        assert len(str(caught.value)) < 500


async def test_a_message_that_repeats_the_key_has_it_struck_out() -> None:
    async with desk() as made:
        body = b'{"error": {"message": "Incorrect API key provided: ' + SECRET.encode() + b'"}}'
        made.server.say(Turn(status=401, body=body))
        with pytest.raises(Unavailable, match=r"\[secret\]") as caught:
            await made.ask()
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_does_not_come_is_timed_out(streamed: bool) -> None:
    async with desk() as made:
        await made.models.load()
        made.server.say(Turn("late", delay=5))
        with pytest.raises(TimedOut) as caught:
            await made.ask(settings=ModelSettings(timeout=1.5), on_text=(lambda _: None) if streamed else None)
        assert caught.value.evidence["sent"] is True


async def test_a_slow_stream_is_timed_out_as_a_whole() -> None:
    async with desk() as made:
        await made.models.load()
        made.server.say(Turn("word " * 100, gap=0.05))
        texts: list[str] = []
        with pytest.raises(TimedOut):
            await made.ask(settings=ModelSettings(timeout=2), on_text=texts.append)
        assert 0 < len(texts) < 100


async def test_a_stream_that_breaks_off_is_unavailable_and_may_have_been_charged() -> None:
    async with desk() as made:
        made.server.say(Turn("one two three four five", cut=3))
        with pytest.raises(Unavailable) as caught:
            await made.ask(on_text=lambda _: None)
        assert caught.value.evidence["sent"] is True


async def test_nobody_listening_was_not_charged() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # taken for as long as the test goes on, and nobody listens
        async with desk(base_url=f"http://127.0.0.1:{port}/v1") as made:
            with pytest.raises(Unavailable) as caught:
                await made.ask()
            assert caught.value.evidence["sent"] is False


async def test_a_cancelled_attempt_ends_at_once_and_the_next_one_works() -> None:
    async with desk() as made:
        await made.models.load()
        made.server.say(Turn("late", delay=30), Turn("prompt"))
        task = asyncio.create_task(made.ask())
        await made.server.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await made.ask()).text == "prompt"


async def test_a_key_that_changes_is_used_from_then_on() -> None:
    async with desk() as made:
        await made.ask()
        made.environment["MODEL_KEY"] = "rotated"
        await made.ask()
        assert made.server.authorizations == [f"Bearer {SECRET}", "Bearer rotated"]


async def test_settings_reach_the_provider() -> None:
    async with desk() as made:
        settings = ModelSettings(max_tokens=50, temperature=0.5, seed=7, timeout=60)
        await made.ask(settings=settings)
        sent = made.server.seen[0]
        assert (sent["temperature"], sent["seed"]) == (0.5, 7)
        assert "service_tier" not in sent


async def test_many_attempts_at_once() -> None:
    async with desk() as made:
        replies = await asyncio.gather(*(made.ask(f"n {n}") for n in range(40)))
        assert {reply.text for reply in replies} == {"hello"}
        assert len(made.server.seen) == 40


@pytest.mark.parametrize(
    ("tier", "says"),
    [
        ({"model": "nobody:model", "price": "free"}, "nobody"),
        ({"model": "openai-chat:no-such-model-of-ours"}, "price"),
        ({"model": "openai-chat:gpt-5-mini", "api_key": {"secret": "ABSENT"}}, "ABSENT"),
    ],
)
async def test_tiers_that_cannot_be_used_say_so_when_loaded(tier: dict[str, Any], says: str) -> None:
    from tightship.core.errors import TightshipError

    models = Models(Tiers({"t": tier}), World(), EnvironmentSecrets(environment={}))
    with pytest.raises(TightshipError, match=says) as caught:
        await models.load()
    assert caught.value.fix
    await models.aclose()


async def test_a_provider_that_is_not_installed_says_what_to_install() -> None:
    models = Models(
        Tiers({"t": {"model": "anthropic:claude-sonnet-4-5"}}),
        World(),
        EnvironmentSecrets(environment={"ANTHROPIC_API_KEY": "k"}),
    )
    try:
        import anthropic  # noqa: F401
    except ImportError:
        with pytest.raises(LoadError, match="anthropic"):
            await models.load()
    else:
        await models.load()
    await models.aclose()


async def test_a_provider_of_the_usual_address_is_reached_through_the_worlds_transport() -> None:
    seen: list[httpx2.Request] = []

    def handler(asked: httpx2.Request) -> httpx2.Response:
        seen.append(asked)
        text = {"type": "output_text", "text": "hello", "annotations": []}
        item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
        used = {
            "input_tokens": 10,
            "output_tokens": 2,
            "total_tokens": 12,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        answer = {"id": "r", "object": "response", "created_at": 1, "status": "completed", "output": [item]}
        more = {"model": "gpt-5-mini-2025-08-07", "usage": used, "tools": [], "tool_choice": "auto"}
        return httpx2.Response(200, json={**answer, **more, "parallel_tool_calls": True})

    world = World(transport=httpx2.MockTransport(handler))
    secrets = EnvironmentSecrets(environment={"OPENAI_API_KEY": SECRET})
    models = Models(Tiers({"cheap": {"model": "openai:gpt-5-mini"}}), world, secrets)
    await models.load()
    request = ask("hi", settings=ModelSettings(max_tokens=200, thinking_budget=2000))
    reply = await models.request(request)
    assert (reply.text, reply.model) == ("hello", "gpt-5-mini-2025-08-07")
    assert reply.usage.usd == 6 * 250 + 4 * 25 + 2 * 2000
    assert reply.usage.usd <= models.bound(request).usd
    body = orjson.loads(seen[0].content)
    assert seen[0].url.host == "api.openai.com"
    assert seen[0].headers["authorization"] == f"Bearer {SECRET}"
    assert (body["service_tier"], body["max_output_tokens"], body["reasoning"]["effort"]) == ("default", 200, "low")
    await models.aclose()
