"""What an answer means: a value, or one of the work exceptions, told apart by whether a write may have been done."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import jsonschema_rs
import orjson

from tightship.connectors._http import Answer, Lost, NotSent
from tightship.core import exact
from tightship.core.errors import (
    DataMissing,
    FormatMismatch,
    InvalidArguments,
    OutcomeUnknown,
    RateLimited,
    TimedOut,
    Unavailable,
    WriteFailed,
)
from tightship.core.money import to_nano
from tightship.core.ports import Reply, Usage

_MAX_MESSAGE = 300
_MAX_WAIT = 86_400.0
_SERVER_TROUBLE = frozenset({500, 502, 503, 504, 507, 508, 520, 522, 524, 529})


class Judge:
    """Turns the answers of one operation into replies and exceptions.

    Args:
        name: the tool, for messages.
        reads: it changes nothing outside.
        price: what a call costs when the answer does not say.
        validator: gives the check of a successful answer's value by status, or None where nothing is declared.
        now: the store's clock, for `Retry-After` dates.
    """

    def __init__(
        self,
        name: str,
        reads: bool,
        price: Usage,
        validator: Callable[[int], jsonschema_rs.Validator | None],
        now: Callable[[], float],
    ) -> None:
        self._name, self._reads, self._price = name, reads, price
        self._validator, self._now = validator, now

    def not_sent(self, error: NotSent) -> NoReturn:
        """Nothing was done, whatever it was."""
        kind = TimedOut if error.late or error.timed_out else Unavailable
        raise kind(f"{self._name} was not sent: {error.reason}", evidence={"operation": self._name, "done": False})

    def lost(self, error: Lost) -> NoReturn:
        """A read failed; a write may have been done."""
        evidence: dict[str, Any] = {"operation": self._name, "reason": error.reason}
        if error.status is not None:
            evidence["status"] = error.status
        if not self._reads and (error.status is None or error.status < 300 or error.status >= 500):
            raise OutcomeUnknown(f"{self._name} may or may not have been done: {error.reason}", evidence=evidence)
        if not self._reads:
            raise WriteFailed(f"{self._name} was refused ({error.status})", evidence=evidence)
        if error.too_large:
            raise FormatMismatch(f"{self._name}: {error.reason}", evidence=evidence)
        kind = TimedOut if error.timed_out else Unavailable
        raise kind(f"{self._name}: {error.reason}", evidence=evidence)

    def judge(self, answer: Answer, asked: float, secrets: Iterable[str] = ()) -> Reply:
        """The reply, or what went wrong.

        Args:
            answer: the whole answer.
            asked: store time (s) when it was asked for.
            secrets: values that must not appear in a message.
        """
        if 200 <= answer.status < 300:
            return self._reply(answer, asked)
        return self._refusal(answer, secrets)

    def _reply(self, answer: Answer, asked: float) -> Reply:
        try:
            value = _value(answer)
        except ValueError as error:
            self._unusable(answer, "", f"{error}")
        validator = self._validator(answer.status)
        if validator is not None:
            fault = next(validator.iter_errors(value), None)
            if fault is not None:
                self._unusable(
                    answer, _pointer(fault.instance_path), f"{_bounded(fault.message)}; got {_shape(fault.instance)}"
                )
        return Reply(value, self._usage(answer), _meta(answer, asked))

    def _unusable(self, answer: Answer, path: str, got: str) -> NoReturn:
        """An answer of another shape than declared: a format mismatch, or a write whose result is not known.

        A write's 2xx says that it was done, yet without its result it can be neither used nor undone: asking again
        (same key, or lookup) is the only safe way on, and that is what an unknown outcome leads to.
        """
        evidence = {"operation": self._name, "status": answer.status, "path": path, "got": got}
        evidence |= self._charged(answer)
        text = f"{self._name} answered in another format at {path or 'its top'}: {got}"
        if self._reads:
            raise FormatMismatch(text, evidence=evidence)
        raise OutcomeUnknown(text, evidence=evidence)

    def _refusal(self, answer: Answer, secrets: Iterable[str]) -> NoReturn:
        status = answer.status
        code, said = _problem(answer)
        for secret in secrets:
            if secret:
                said, code = said.replace(secret, "[secret]"), code.replace(secret, "[secret]")
        text = f"{self._name} answered {status}" + (f": {said}" if said else "")
        evidence: dict[str, Any] = {"operation": self._name, "status": status}
        if code:
            evidence["code"] = code
        if said:
            evidence["detail"] = said
        evidence |= self._charged(answer)
        wait = _retry_after(answer, self._now())
        if status == 429:
            raise RateLimited(text, retry_after=wait, evidence=evidence)
        if status in (408, 425):
            raise TimedOut(text, retry_after=wait, evidence=evidence)  # not processed (RFC 9110, 15.5.9; RFC 8470)
        if status in (400, 422):
            raise InvalidArguments(text)
        if self._reads:
            self._read_refused(status, text, wait, evidence)
        self._write_refused(status, text, wait, evidence)

    def _read_refused(self, status: int, text: str, wait: float | None, evidence: Mapping[str, Any]) -> NoReturn:
        if status >= 500:
            raise Unavailable(text, retry_after=wait, evidence=evidence)
        if status == 401:
            raise Unavailable(text, evidence=evidence, fix="check the connector's auth and its secret")
        if status in (406, 415) or status < 400:
            raise FormatMismatch(text, evidence=evidence)
        raise DataMissing(text, evidence=evidence)

    def _write_refused(self, status: int, text: str, wait: float | None, evidence: dict[str, Any]) -> NoReturn:
        if status == 503 and wait is not None:
            raise Unavailable(text, retry_after=wait, evidence={**evidence, "done": False})
        if status in _SERVER_TROUBLE or status == 303:
            raise OutcomeUnknown(f"{text}; it may or may not have been done", evidence=evidence)
        if status >= 500 and status not in (501, 505):
            raise OutcomeUnknown(f"{text}; it may or may not have been done", evidence=evidence)
        if status == 412:
            evidence["conflict"] = True
        raise WriteFailed(text, evidence=evidence, fix="check the connector's auth" if status == 401 else None)

    def _usage(self, answer: Answer) -> Usage:
        stated = _stated_cost(answer)
        return self._price if stated is None else Usage(stated, self._price.tokens_in, self._price.tokens_out)

    def _charged(self, answer: Answer) -> dict[str, int]:
        """A failed call's stated cost, in nano-dollars."""
        stated = _stated_cost(answer)
        return {} if not stated else {"usd_nano": stated}


def _value(answer: Answer) -> Any:
    """The body as JSON.

    Raises:
        ValueError: it is not what its media type says; the message says what was got.
    """
    if not answer.body:
        return None
    media = answer.media
    if media == "application/json" or media.endswith("+json") or not media:
        try:
            return exact.loads(answer.body)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"no JSON ({error.msg}, at byte {error.pos} of {len(answer.body)})") from None
    if media.startswith("text/"):
        try:
            return answer.body.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{media} that is no UTF-8") from None
    return {"content_type": media, "base64": base64.b64encode(answer.body).decode()}


def _stated_cost(answer: Answer) -> int | None:
    stated = answer.headers.get("x-cost-usd")
    if stated is None:
        return None
    try:
        cost = to_nano(stated)
    except ValueError:
        return None
    return cost if cost >= 0 else None


def _meta(answer: Answer, asked: float) -> dict[str, Any]:
    """What is worth keeping of the headers; `as_of`: the value was true at its source at this moment or later."""
    age = answer.headers.get("age", "")
    meta: dict[str, Any] = {"status": answer.status, "as_of": asked - (float(age) if age.isdecimal() else 0.0)}
    if "etag" in answer.headers:
        meta["etag"] = answer.headers["etag"]
    if answer.headers.get("idempotency-replayed", "").lower() == "true":
        meta["replayed"] = True
    if "x-request-id" in answer.headers:
        meta["request_id"] = answer.headers["x-request-id"][:200]
    return meta


def _problem(answer: Answer) -> tuple[str, str]:
    """Code and message of an error body (RFC 9457 and what is common besides), bounded."""
    try:
        body = orjson.loads(answer.body) if "json" in answer.media else None
    except orjson.JSONDecodeError:
        body = None
    if body is None:
        text = answer.body[: 4 * _MAX_MESSAGE].decode(errors="replace") if answer.media == "text/plain" else ""
        return "", _bounded(text)
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    if not isinstance(body, Mapping):
        return "", ""
    said = next(
        (body[name] for name in ("detail", "message", "error_description", "title", "error") if body.get(name)), ""
    )
    code = body.get("code") or body.get("type") or ""
    texts = [part if isinstance(part, str) else orjson.dumps(part).decode() for part in (code, said)]
    return _bounded(texts[0])[:100], _bounded(texts[1])


def _bounded(text: str) -> str:
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def _pointer(path: Iterable[str | int]) -> str:
    return "".join(f"/{part}" for part in path)


def _shape(value: Any) -> str:
    """What was got, without text that may be somebody's data."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, Mapping):
        names = [str(name) for name in list(value)[:20]]
        return f"an object with {', '.join(names)}" if names else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return orjson.dumps(value).decode()


def _retry_after(answer: Answer, now: float) -> float | None:
    """Seconds to wait (RFC 9110, section 10.2.3), between 0 and a day; None when nothing sensible is stated."""
    stated = answer.headers.get("retry-after", "").strip()
    if not stated:
        return None
    if stated.isdecimal():
        return min(float(stated), _MAX_WAIT)
    try:
        moment = parsedate_to_datetime(stated)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return min(max(moment.timestamp() - now, 0.0), _MAX_WAIT)
