"""Failures of providers as exceptions of the work; each says whether the attempt may have been charged."""

from __future__ import annotations

from typing import Any

from tightship.core.errors import (
    FormatMismatch,
    InvalidArguments,
    LoadError,
    RateLimited,
    TightshipError,
    TimedOut,
    Unavailable,
    Unforeseen,
)

_MAX_TEXT = 300
_MAX_WAIT = 86_400.0


def translated(error: Exception, tier: str, secret: str | None) -> TightshipError:
    """The exception that this failure is.

    Args:
        error: what the library raised.
        tier: the tier that was asked, for the message.
        secret: the credential in use; it is struck out of messages.
    """
    from pydantic_ai import exceptions as lib

    def text(said: str) -> str:
        said = " ".join(said.split())
        if secret:
            said = said.replace(secret, "[secret]")
        return f"tier {tier}: {said[:_MAX_TEXT]}"

    if isinstance(error, lib.ModelAPIError):
        return _api_error(error, text(_message(error)))
    if isinstance(error, TimeoutError):
        return TimedOut(text("no whole answer in time"), evidence={"sent": True})
    if isinstance(error, lib.UnexpectedModelBehavior):
        return FormatMismatch(text(error.message), evidence={"sent": True})
    if isinstance(error, lib.UserError):
        return LoadError(text(error.message), fix="correct the tier in tightship.yaml")
    if isinstance(error, LookupError | ValueError | TypeError | AttributeError):
        # The library met something that it did not expect in the answer (an empty list of choices, say).
        return FormatMismatch(text(f"no answer: {type(error).__name__}: {error}"), evidence={"sent": True})
    return Unforeseen(text(f"{type(error).__name__}: {error}"), evidence={"sent": True})


def _api_error(error: Any, text: str) -> TightshipError:
    from pydantic_ai import exceptions as lib

    status = getattr(error, "status_code", None)
    wait = error.retry_after if error.retry_after is None else min(max(error.retry_after, 0.0), _MAX_WAIT)
    evidence: dict[str, Any] = {"sent": _charged(error), "model": error.model_name}
    facts = {
        "status": status,
        "code": error.provider_error_code,
        "type": error.provider_error_type,
        "in_stream": error.in_stream or None,
    }
    evidence |= {name: value for name, value in facts.items() if value is not None}
    if status is None and isinstance(error.__cause__, ValueError):
        return FormatMismatch(text, evidence=evidence)  # the answer could not be decoded
    if isinstance(error, lib.ModelRateLimitError):
        return RateLimited(text, retry_after=wait, evidence=evidence)
    if isinstance(error, lib.ModelRequestTimeout | lib.ModelTimeoutError):
        return TimedOut(text, retry_after=wait, evidence=evidence)
    if isinstance(error, lib.ModelQuotaExceededError):
        return Unavailable(text, evidence={**evidence, "quota": True}, fix="raise the account's quota or credit")
    if isinstance(error, lib.ModelAuthenticationError):
        return Unavailable(text, evidence=evidence, fix="check the tier's api_key")
    if isinstance(error, lib.ModelNotFoundError):
        return Unavailable(text, evidence=evidence, fix="check the tier's model")
    if isinstance(error, lib.ModelContextWindowExceededError):
        return InvalidArguments(text, fix="shorten the conversation, or use a tier with a larger context window")
    if isinstance(error, lib.ModelRequestRejectedError):
        return InvalidArguments(text)
    if status == 408:
        return TimedOut(text, retry_after=wait, evidence=evidence)
    return Unavailable(text, retry_after=wait, evidence=evidence)


def _charged(error: Any) -> bool:
    """Whether the provider may charge: not when it never got the request or refused it before answering."""
    from pydantic_ai import exceptions as lib

    if error.in_stream:
        return True
    if isinstance(error, lib.ModelConnectionError):
        return error.phase not in ("pool", "connect")
    if isinstance(error, lib.ModelRequestTimeout):
        return True
    status = getattr(error, "status_code", None)
    return not (isinstance(status, int) and 400 <= status < 500 and status != 408)


def _message(error: Any) -> str:
    """What the provider said, without the library's frame around it."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            body = inner["message"]
    status = getattr(error, "status_code", None)
    said = body if isinstance(body, str) and body else error.message
    return f"{error.model_name} answered {status}: {said}" if status is not None else f"{error.model_name}: {said}"
