"""Our conversations as Pydantic AI's messages, and its responses as ours."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from tightship.core import exact
from tightship.core.ports import Json, ToolSpec
from tightship.models.conversation import Conversation, Message, Thinking, ToolCall
from tightship.models.port import ModelRequest

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelRequestPart, ModelResponse, ModelResponsePart
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.tools import ToolDefinition

OUTPUT_TOOL = "final_result"
_WIRE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def wire_name(name: str) -> str:
    """A tool's name as providers take it (letters, digits, `_`, `-`; at most 64): `orders.get` is `orders__get`.

    A name that would not come back unchanged gets a hash at its end, so two tools never share one.
    """
    plain = name.replace(".", "__")
    if _WIRE_NAME.match(plain) and "__" not in name and name != OUTPUT_TOOL:
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:55]}_{digest}"


class Names:
    """Both directions for the tools of one request, and for those that its conversation speaks of."""

    def __init__(self, tools: Iterable[ToolSpec], conversation: Conversation) -> None:
        self._ours = {wire_name(tool.name): tool.name for tool in tools}
        for message in conversation.messages():
            for call in message.calls:
                self._ours.setdefault(wire_name(call.name), call.name)

    def ours(self, name: str) -> str:
        """Our name; a name that was never given stays as it is, to be refused as such."""
        return self._ours.get(name, name)


def to_messages(conversation: Conversation) -> list[ModelMessage]:
    """The conversation as the library takes it; what follows one answer is one request."""
    from pydantic_ai.messages import ModelRequest as Ask

    made: list[ModelMessage] = []
    parts: list[ModelRequestPart] = []
    for message in conversation.messages():
        if message.role == "assistant":
            if parts:
                made.append(Ask(parts=parts))
                parts = []
            made.append(_response(message))
        else:
            parts.append(_part(message))
    if parts:
        made.append(Ask(parts=parts))
    return made


def _part(message: Message) -> ModelRequestPart:
    from pydantic_ai.messages import SystemPromptPart, ToolReturnPart, UserPromptPart

    if message.role == "system":
        return SystemPromptPart(message.content)
    if message.role == "tool":
        return ToolReturnPart(
            tool_name=wire_name(message.name or "tool"), content=message.content, tool_call_id=message.call_id or ""
        )
    return UserPromptPart(message.content)


def _response(message: Message) -> ModelResponse:
    from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart

    parts: list[ModelResponsePart] = []
    for thought in message.thinking:
        raw: dict[str, Any] = dict(thought.raw)
        parts.append(ThinkingPart(content=thought.text, **raw))
    if message.content:
        parts.append(TextPart(message.content))
    for call in message.calls:
        args = call.malformed if call.args is None else dict(call.args)
        parts.append(ToolCallPart(tool_name=wire_name(call.name), args=args, tool_call_id=call.id))
    # Reasoning is accepted by the provider that wrote it only; the library drops it for any other.
    names = {part.provider_name for part in parts if part.part_kind == "thinking" and part.provider_name}
    return ModelResponse(parts=parts, provider_name=next(iter(names), None))


def from_parts(parts: Sequence[ModelResponsePart], names: Names) -> tuple[Message, ToolCall | None]:
    """The assistant's message, and the call that is the structured answer, if there is one."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    thinking: list[Thinking] = []
    answer: ToolCall | None = None
    for part in parts:
        if part.part_kind == "text":
            texts.append(part.content)
        elif part.part_kind == "tool-call":
            args, malformed = arguments(part.args)
            call = ToolCall(part.tool_call_id, names.ours(part.tool_name), args, malformed)
            if part.tool_name == OUTPUT_TOOL:
                answer = answer or call
            else:
                calls.append(call)
        elif part.part_kind == "thinking":
            raw = {
                "id": part.id,
                "signature": part.signature,
                "provider_name": part.provider_name,
                "provider_details": part.provider_details,
            }
            thinking.append(Thinking(part.content, {key: value for key, value in raw.items() if value is not None}))
    return Message("assistant", "".join(texts), tuple(calls), thinking=tuple(thinking)), answer


def arguments(raw: str | Mapping[str, Any] | None) -> tuple[Mapping[str, Json] | None, str | None]:
    """Arguments as an object, or None and the text that is none."""
    if raw is None or raw == "":
        return {}, None
    if not isinstance(raw, str):
        return dict(raw), None
    try:
        value = exact.loads(raw)
    except orjson.JSONDecodeError:
        return None, raw
    return (value, None) if isinstance(value, dict) else (None, raw)


def wrapped(schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """An output schema as providers take it: an object at its top; whether the answer stands in its `value`."""
    if schema.get("type") == "object":
        return dict(schema), False
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    outer: dict[str, Any] = {
        "type": "object",
        "properties": {"value": inner},
        "required": ["value"],
        "additionalProperties": False,
    }
    if "$defs" in schema:
        outer["$defs"] = schema["$defs"]
    return outer, True


def parameters(request: ModelRequest, native: bool = False) -> ModelRequestParameters:
    """Tools and the structured answer, in the mode that the model does best.

    Providers give probabilities of the tokens of texts, and not of calls. So where they are asked for, the answer is a
    text: in the provider's own structured form where it is `native` to the model, else as the prompt describes it.
    """
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition
    from pydantic_ai.tools import ToolDefinition

    tools: list[ToolDefinition] = [
        ToolDefinition(
            name=wire_name(tool.name), description=tool.description, parameters_json_schema=dict(tool.input_schema)
        )
        for tool in request.tools
    ]
    if request.output_schema is None:
        return ModelRequestParameters(function_tools=tools)
    schema, _ = wrapped(request.output_schema)
    if request.settings.logprobs is not None:
        return ModelRequestParameters(
            function_tools=tools,
            output_mode="native" if native else "prompted",
            output_object=OutputObjectDefinition(json_schema=schema, name=OUTPUT_TOOL),
            allow_text_output=True,
        )
    about = "The answer. Call it once, when everything is known."
    return ModelRequestParameters(
        function_tools=tools,
        output_mode="auto",
        output_object=OutputObjectDefinition(json_schema=schema, name=OUTPUT_TOOL),
        output_tools=[
            ToolDefinition(name=OUTPUT_TOOL, description=about, parameters_json_schema=schema, kind="output")
        ],
        allow_text_output=False,
    )
