"""Model tiers: names that agents use for models, each with the next one to fall back or step up to."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tightship.core.errors import LoadError, UnknownName
from tightship.models.port import ModelSettings

_MODEL_ID = re.compile(r"[a-z0-9][a-z0-9/_-]*:\S+\Z")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriceSettings(_Strict):
    """What a model costs, in USD for a million tokens; where it says so and as of when (C7).

    Attributes:
        input: tokens in.
        output: tokens out, reasoning included.
        cached_input: tokens read from the provider's cache; the full price without it.
        cache_write: tokens written to the provider's cache; the full price without it.
        source: where the price is stated.
        date: as of when.
    """

    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    cached_input: Decimal | None = Field(default=None, ge=0)
    cache_write: Decimal | None = Field(default=None, ge=0)
    source: str
    date: dt.date


def _free(value: Any) -> Any:
    """`price: free` states that calls cost nothing (a model of one's own)."""
    if value == "free":
        return {"input": 0, "output": 0, "source": "stated as free", "date": dt.date(1970, 1, 1)}
    return value


class SecretRef(_Strict):
    """The name of a secret."""

    secret: str


class TierSettings(_Strict):
    """One tier of `tightship.yaml`.

    Attributes:
        model: `provider:model` as Pydantic AI names them.
        next: the tier to go to when this one fails or is not enough.
        price: what it costs, when the built-in price list does not know or is wrong; `free` for models of one's own.
        base_url: another server with the provider's interface.
        api_key: the secret; the provider's usual name (`OPENAI_API_KEY`) without it.
        max_tokens: the most tokens of an answer.
        temperature: randomness.
        thinking_budget: the most tokens of reasoning.
        timeout: seconds for one attempt.
        cache_prompt: ask the provider to cache the stable part of prompts.
    """

    model: str
    next: str | None = None
    price: Annotated[PriceSettings | None, BeforeValidator(_free)] = None
    base_url: str | None = None
    api_key: SecretRef | None = None
    max_tokens: int = Field(default=4096, gt=0, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    thinking_budget: int | None = Field(default=None, ge=0, le=1_000_000)
    timeout: float = Field(default=120.0, gt=0, le=3600)
    cache_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier by name."""

    name: str
    settings: TierSettings

    @property
    def model(self) -> str:
        """`provider:model`."""
        return self.settings.model

    def model_settings(self) -> ModelSettings:
        """How this tier is asked where an agent states nothing else."""
        settings = self.settings
        return ModelSettings(
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            thinking_budget=settings.thinking_budget,
            timeout=settings.timeout,
            cache_prompt=settings.cache_prompt,
        )


class Tiers:
    """All tiers of a workspace.

    Args:
        raw: the `tiers` mapping of `tightship.yaml`.
        file: the file, for messages.

    Raises:
        LoadError: a field is wrong, `next` names no tier, or the tiers lead in a circle.
    """

    def __init__(self, raw: Mapping[str, Any] | None = None, *, file: str | None = None) -> None:
        self._tiers: dict[str, Tier] = {}
        for name, settings in (raw or {}).items():
            self._tiers[name] = Tier(name, _settings(name, settings, file))
        for name in self._tiers:
            self._check_chain(name, file)

    def _check_chain(self, name: str, file: str | None) -> None:
        seen = [name]
        while (following := self._tiers[seen[-1]].settings.next) is not None:
            if following not in self._tiers:
                raise LoadError(
                    f"tiers.{seen[-1]}.next names {following!r}, which is no tier",
                    file=file,
                    fix=f"use one of: {', '.join(self._tiers)}",
                )
            if following in seen:
                raise LoadError(f"tiers lead in a circle: {' -> '.join([*seen, following])}", file=file)
            seen.append(following)

    def names(self) -> list[str]:
        """All names, in the order of the file."""
        return list(self._tiers)

    def get(self, name: str) -> Tier:
        """The tier.

        Raises:
            UnknownName: there is none of that name.
        """
        if name not in self._tiers:
            raise UnknownName(f"there is no tier {name!r}", fix=f"use one of: {', '.join(self._tiers) or 'none yet'}")
        return self._tiers[name]

    def next_tier(self, name: str) -> Tier | None:
        """The tier after this one, or None at the end."""
        following = self.get(name).settings.next
        return None if following is None else self.get(following)


def _settings(name: str, raw: Any, file: str | None) -> TierSettings:
    fix = "correct this field in tightship.yaml"
    try:
        settings = TierSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in ("tiers", name, *first["loc"]))
        raise LoadError(f"{place}: {first['msg']}", file=file, fix=fix) from None
    if not _MODEL_ID.match(settings.model):
        raise LoadError(
            f"tiers.{name}.model: {settings.model!r} is no `provider:model`",
            file=file,
            fix='for example "openai:gpt-5-mini"',
        )
    if settings.base_url is not None and settings.price is None:
        raise LoadError(
            f"tiers.{name} has a server of its own, so no price list knows its price",
            file=file,
            fix="state `price: {input, output, source, as_of}` in USD for a million tokens, or `price: free`",
        )
    return settings
