"""A small server with OpenAI's chat completions interface, on loopback, for tests: it answers what it is told to.

Written from the public description of the interface (chat completion and chat completion chunk objects, server-sent
events that end with `[DONE]`); it counts a token for every byte.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Turn:
    """One answer.

    Attributes:
        text: the content.
        calls: (name, arguments) of tool calls; arguments may be text that is no JSON.
        refusal: a refusal instead of content.
        reason: finish_reason; derived from the rest when None.
        status: an HTTP error instead of an answer.
        headers: of an error.
        body: a raw body instead of an answer.
        delay: seconds before the first byte.
        gap: seconds between the pieces of a stream.
        cut: break the connection off after this many pieces of a stream.
        usage: whether the answer says what it used.
        cached: prompt tokens that were read from the cache.
        tokens: (token, log-probability) of the text, said when they are asked for.
    """

    text: str | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)
    refusal: str | None = None
    reason: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    gap: float = 0.0
    cut: int | None = None
    usage: bool = True
    cached: int = 0
    tokens: list[tuple[str, float]] | None = None

    def logprobs(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if not body.get("logprobs") or self.tokens is None:
            return None
        told = [
            {"token": one, "logprob": log, "bytes": [*one.encode()], "top_logprobs": []} for one, log in self.tokens
        ]
        return {"content": told, "refusal": None}

    def finish(self) -> str:
        return self.reason or ("tool_calls" if self.calls else "stop")

    def tool_calls(self) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{n}",
                "type": "function",
                "function": {"name": name, "arguments": args if isinstance(args, str) else json.dumps(args)},
            }
            for n, (name, args) in enumerate(self.calls)
        ]


class OpenAiServer:
    """The application: `turns` are given in order, the last one again and again; `seen` holds the requests.

    With a `brain` each answer is what it makes of the request instead.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = [Turn("hello")]
        self.brain: Callable[[dict[str, Any]], Turn] | None = None
        self.seen: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.asked = asyncio.Event()
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])

    def say(self, *turns: Turn) -> None:
        self.turns = list(turns)

    async def _complete(self, asked: Request) -> Response:
        body = await asked.json()
        self.seen.append(body)
        self.asked.set()
        self.authorizations.append(asked.headers.get("authorization", ""))
        if self.brain is not None:
            turn = self.brain(body)
        else:
            turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        await asyncio.sleep(turn.delay)
        if turn.status != 200:
            error = {"error": {"message": f"told to fail with {turn.status}", "type": "test", "code": "told"}}
            content = turn.body if turn.body is not None else json.dumps(error).encode()
            return Response(content, turn.status, {"Content-Type": "application/json", **turn.headers})
        if turn.body is not None:
            return Response(turn.body, 200, {"Content-Type": "application/json"})
        if body.get("stream"):
            return StreamingResponse(self._stream(body, turn), media_type="text/event-stream")
        message: dict[str, Any] = {"role": "assistant", "content": turn.text, "refusal": turn.refusal}
        if turn.calls:
            message["tool_calls"] = turn.tool_calls()
        choice = {"index": 0, "message": message, "finish_reason": turn.finish(), "logprobs": turn.logprobs(body)}
        answer = {**self._head(body, "chat.completion"), "choices": [choice]}
        if turn.usage:
            answer["usage"] = usage(body, turn)
        return JSONResponse(answer)

    def _head(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{len(self.seen)}",
            "object": kind,
            "created": 1_700_000_000,
            "model": f"{body['model']}-2026-01-31",
            "system_fingerprint": "fp_test",
        }

    async def _stream(self, body: dict[str, Any], turn: Turn) -> AsyncIterator[bytes]:
        pieces: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        pieces += [{"content": word} for word in (turn.text or "").replace(" ", " \0").split("\0") if word]
        # Two calls at once come in interleaved pieces, as providers send them.
        calls = turn.tool_calls()
        for n, call in enumerate(calls):
            pieces.append({"tool_calls": [{"index": n, **call, "function": {**call["function"], "arguments": ""}}]})
        for half in (0, 1):
            for n, call in reversed(list(enumerate(calls))):
                written = call["function"]["arguments"]
                middle = len(written) // 2
                part = written[:middle] if half == 0 else written[middle:]
                pieces.append({"tool_calls": [{"index": n, "function": {"arguments": part}}]})
        head = self._head(body, "chat.completion.chunk")
        for count, delta in enumerate(pieces):
            if turn.cut is not None and count >= turn.cut:
                raise ConnectionAbortedError("told to break off")
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            if count == len(pieces) - 1:
                choice["logprobs"] = turn.logprobs(body)
            yield event({**head, "choices": [choice]})
            await asyncio.sleep(turn.gap)
        yield event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": turn.finish()}]})
        if turn.usage and (body.get("stream_options") or {}).get("include_usage"):
            yield event({**head, "choices": [], "usage": usage(body, turn)})
        yield b"data: [DONE]\n\n"


def structured(body: dict[str, Any], value: Any, **more: Any) -> Turn:
    """A structured answer in the mode that was asked for: as the content, or as a call of the output tool."""
    if body.get("response_format"):
        return Turn(json.dumps(value), **more)
    return Turn(calls=[("final_result", value)], **more)


def usage(body: dict[str, Any], turn: Turn) -> dict[str, Any]:
    """What the answer used, as the worst tokenizer would count it: one token for each byte, and for each framing."""
    texts = [str(message.get("content") or "") for message in body["messages"]]
    texts += [json.dumps(message.get("tool_calls") or "", ensure_ascii=False) for message in body["messages"]]
    texts += [json.dumps(body.get(part) or "", ensure_ascii=False) for part in ("tools", "response_format")]
    sent = sum(len(text.encode()) for text in texts) + 4 * len(body["messages"])
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    made = min(len(json.dumps([turn.text, turn.calls, turn.refusal])), limit)
    return {
        "prompt_tokens": sent,
        "completion_tokens": made,
        "total_tokens": sent + made,
        "prompt_tokens_details": {"cached_tokens": turn.cached},
    }


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(data)}\n\n".encode()


class _Announcing(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serving(server: OpenAiServer) -> AsyncIterator[str]:
    """The server on a port of its own; gives its base URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            server.app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        made = _Announcing(config)
        task = asyncio.create_task(made.serve(sockets=[listener]))
        await made.ready.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            made.should_exit = True
            await task
