"""What passes between the HTTP layer and the domain: a call, its answer, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


class CompanyError(Exception):
    """The sample company could not be opened or started; the message names the cause."""


class Refusal(Exception):
    """A call was not carried out, and nothing was changed.

    Parameters: `status` is the HTTP status, `code` the stable name for programs, `detail` the sentence for people.
    It is served as problem details (RFC 9457).
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


def not_found(what: str, identifier: str) -> Refusal:
    """The refusal for a record that does not exist."""
    return Refusal(404, "not_found", f"There is no {what} {identifier}.")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operation, already valid against the OpenAPI document.

    `params` holds path and query parameters by name; `key` is the Idempotency-Key, `if_match` the If-Match header.
    """

    params: Mapping[str, str | int | bool] = field(default_factory=dict[str, "str | int | bool"])
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    key: str | None = None
    if_match: str | None = None

    def text(self, name: str) -> str:
        """The parameter `name` as text; it must be present (path parameters always are)."""
        return str(self.params[name])

    def given(self, *names: str) -> dict[str, object]:
        """The parameters of these names; None for one that was not given."""
        return {name: self.params.get(name) for name in names}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one call: a JSON object, the id of the record it is about, and what belongs in headers."""

    body: Json
    status: int = 200
    etag: str | None = None
    result_id: str = ""
    cost_usd: str | None = None
    replayed: bool = False


def etag(version: int) -> str:
    """The strong entity tag of a record's version (RFC 9110, 8.8.3)."""
    return f'"v{version}"'


def require_match(if_match: str | None, version: int) -> None:
    """Refuse a conditional change unless `if_match` names the current version (RFC 9110, 13.1.1).

    Raises: Refusal 428 when the header is missing (RFC 6585), 412 when no listed tag is current.
    """
    if if_match is None:
        raise Refusal(428, "precondition_required", "Read the record first and send its ETag as If-Match.")
    tags = {tag.strip() for tag in if_match.split(",")}
    if "*" not in tags and etag(version) not in tags:
        raise Refusal(412, "precondition_failed", f"The record has changed; its ETag is now {etag(version)}.")


def to_cents(amount: float) -> int:
    """Hundredths of a JSON number. Raises: Refusal 422 when it has more than two decimals or is not finite."""
    if not math.isfinite(amount):
        raise Refusal(422, "invalid", "The amount is not a finite number.")
    cents = Decimal(str(amount)) * 100
    if cents != cents.to_integral_value():
        raise Refusal(422, "invalid", f"The amount {amount} has more than two decimals.")
    return int(cents)


def from_cents(cents: int) -> float:
    """The JSON number of an amount in hundredths."""
    return cents / 100


def to_time(seconds: float) -> str:
    """RFC 3339 text, in UTC with milliseconds, of seconds since 1970."""
    stamp = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")
