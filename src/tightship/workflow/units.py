"""Durations, money and names as people write them."""

from __future__ import annotations

import ipaddress
import math
import re
from decimal import Decimal
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, PlainSerializer

from tightship.core.money import NANO, to_nano

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGEST = 10 * 366 * 86400.0

IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*\Z", re.IGNORECASE)
_WORKFLOW_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*\Z")

AMBIENT: Final = ("threshold", "now", "context")
"""Names that are not run data; the frame decides their values once and records them."""

RESERVED: Final = frozenset(
    {"input", "feedback", "constraints", "args", "result", *AMBIENT}
    # words that the language of conditions keeps for itself (CEL specification, section "Syntax")
    | {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return", "var", "void", "while"}
    | {"int", "uint", "double", "bool", "string", "bytes", "list", "map", "type", "dyn", "timestamp", "duration"}
    | {"has", "all", "exists", "exists_one", "filter", "size", "math"}
)
"""Names that no step, agent or field of the scope may take."""


def parse_duration(value: object) -> float:
    """Seconds of a duration.

    Args:
        value: a number of seconds, or text such as `30s`, `4h`, `2d`, `1h 30m` (units: ms, s, m, h, d, w).

    Raises:
        ValueError: it is none of these, is negative, or exceeds ten years.
    """
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or text such as 30s, 4h, 2d")
    if isinstance(value, int | float):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _parse_text(value.strip())
    else:
        raise ValueError("a duration is a number of seconds or text such as 30s, 4h, 2d")
    if not math.isfinite(seconds) or seconds < 0 or seconds > _LONGEST:
        raise ValueError("a duration lies between 0 seconds and ten years")
    return seconds


def _parse_text(text: str) -> float:
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    rest = _DURATION.sub("", text).strip()
    found = _DURATION.findall(text)
    if rest or not found:
        raise ValueError(f"{text!r} is no duration; write for example 30s, 5m, 4h, 2d or 1h 30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in found)


def show_duration(seconds: float) -> str:
    """`4h`, `1h 30m`, `45s`: the shortest exact text for whole seconds, else seconds with decimals."""
    if seconds != int(seconds):
        return f"{seconds:g}s"
    left, parts = int(seconds), list[str]()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def parse_usd(value: object) -> int:
    """Nano-dollars of an amount written in USD (`0.30`, `"0.30"`, `"$0.30"`).

    Raises:
        ValueError: it is no amount, or negative.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("an amount of money is a number of US dollars, for example 0.30")
    text = value.strip().removeprefix("$") if isinstance(value, str) else value
    nano = to_nano(text)
    if nano < 0:
        raise ValueError("an amount of money is not negative")
    return nano


def usd_text(nano: int) -> str:
    """The exact amount in USD as decimal text, so that it reads back as the same number of nano-dollars."""
    text = f"{Decimal(nano) / NANO:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def check_name(value: Any) -> str:
    """A name that conditions can use: letters, digits and `_`, not a reserved word.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or not IDENTIFIER.match(value) or len(value) > 64 or "__" in value:
        raise ValueError("a name has letters, digits and single '_' (it is used in conditions), at most 64 of them")
    if value in RESERVED:
        raise ValueError(f"{str(value)!r} has a meaning of its own in conditions; choose another name")
    return str(value)


def is_name(value: object) -> bool:
    """Whether `check_name` would accept it."""
    try:
        check_name(value)
    except ValueError:
        return False
    return True


def check_workflow_name(value: Any) -> str:
    """A workflow's name: lower-case letters and digits, with `-` or `_` between.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or not _WORKFLOW_NAME.match(value) or len(value) > 64:
        raise ValueError("a workflow's name has lower-case letters and digits, with - or _ between, at most 64 of them")
    return str(value)


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds; written as a number or as `30s`, `4h`, `2d`."""

Usd = Annotated[int, BeforeValidator(parse_usd), PlainSerializer(usd_text, return_type=str)]
"""Nano-dollars; written, and serialised again, in US dollars."""

Name = Annotated[str, BeforeValidator(check_name)]
"""A name for conditions."""

WorkflowName = Annotated[str, BeforeValidator(check_workflow_name)]
"""A workflow's name."""


def variable(text: str) -> str:
    """NAME of `${NAME}`; empty for anything else."""
    name = text[2:-1]
    return name if text.startswith("${") and text.endswith("}") and name.isidentifier() else ""


def secret_variable(value: Any) -> Any:
    """A secret is named, and never written down; its text is not repeated in the error.

    Raises:
        ValueError: it is not written as `${NAME}`.
    """
    if not variable(str(value)):
        raise ValueError("a secret is named, not written down here: write ${NAME}, and set NAME where secrets are kept")
    return value


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
