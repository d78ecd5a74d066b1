"""A model that is none: answers that fit the declared shape, made from a seed, at no cost.

For `--rehearse`: workflows run from end to end before any provider is paid. Every reply says what it is (`model` is
`rehearsal`), and its texts consist of words such as "rehearsal" and "placeholder".
"""

from __future__ import annotations

import hashlib

from tightship.core.ports import FREE, Json
from tightship.models._instances import instance
from tightship.models.conversation import Message
from tightship.models.port import ModelReply, ModelRequest, OnText

REHEARSAL = "rehearsal"


class RehearsalModel:
    """Generated answers (models.port.Model): the same agent and conversation get the same one.

    Args:
        seed: another seed, other answers.
    """

    def __init__(self, seed: int | str = 1) -> None:
        self._seed = seed

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """An answer of the declared shape, or a text that says what it is.

        Raises:
            WrongShape: the declared shape admits no value that the generator finds.
        """
        parts = f"{self._seed}\x1f{request.agent}\x1f{request.conversation.digest}"
        seed = hashlib.sha256(parts.encode()).hexdigest()
        text, output = f"This is a rehearsal ({seed[:8]}); no model was asked.", None
        if request.output_schema is not None:
            output = rehearsed(request.output_schema, seed)
        if on_text is not None:
            on_text(text)
        meta: dict[str, Json] = {"rehearsal": True}
        if request.settings.logprobs is not None:
            meta |= {"probability": 0.5, "tokens": 1}  # it stands for none: rehearsals release nothing
        return ModelReply(Message.assistant(text), FREE, "stop", REHEARSAL, output=output, meta=meta)


def rehearsed(schema: Json, seed: str) -> Json:
    """A value that fits a JSON Schema, decided by the seed.

    Raises:
        WrongShape: no such value was found.
    """
    return instance(schema, seed)
