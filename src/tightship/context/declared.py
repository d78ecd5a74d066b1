"""The declared keys of a workspace: which declaration a key falls under, who may do what, and what may be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tightship.core.errors import InvalidArguments, NotDeclared, UnknownName
from tightship.core.ports import WORKFLOW, Json
from tightship.workflow.context_keys import ContextKey, check_key, matches
from tightship.workflow.source import did_you_mean
from tightship.workflow.types import shape_of


@dataclass(frozen=True, slots=True)
class Declared:
    """A key with its declaration.

    Attributes:
        key: the key. pattern: what it is declared under. spec: the declaration. parts: what the stars stand for.
    """

    key: str
    pattern: str
    spec: ContextKey
    parts: tuple[str, ...] = ()

    def scope(self, tenant: str, workflow: str, run: str) -> str:
        """The scope in which this key's value lives: `tenant:T`, `workflow:T/W` or `run:R`.

        Raises:
            InvalidArguments: the key belongs to a workflow or a run, and none is named.
        """
        if self.spec.scope == "tenant":
            return f"tenant:{tenant}"
        named = workflow if self.spec.scope == "workflow" else run
        if not named:
            raise InvalidArguments(
                f"{self.key} belongs to one {self.spec.scope}, and none is named",
                fix=f"name the {self.spec.scope}",
            )
        return f"workflow:{tenant}/{workflow}" if self.spec.scope == "workflow" else f"run:{run}"

    def check_reader(self, who: str) -> None:
        """Whether somebody may read it; whoever may write may read.

        Raises:
            NotDeclared: they may not.
        """
        spec = self.spec
        if spec.readers is None or who == WORKFLOW or who in spec.readers or who in spec.writers:
            return
        raise NotDeclared(
            f"{who} may not read {self.key}", fix=f"add {who} to `readers:` of {self.pattern} in tightship.yaml"
        )

    def check_writer(self, who: str) -> None:
        """Whether somebody may write it.

        Raises:
            NotDeclared: they may not.
        """
        if who in self.spec.writers:
            return
        raise NotDeclared(
            f"{who} may not write {self.key}", fix=f"add {who} to `writers:` of {self.pattern} in tightship.yaml"
        )

    def check_feed(self, source: str) -> None:
        """Whether an outside system may push it.

        Raises:
            NotDeclared: it may not.
        """
        if source not in self.spec.feeds:
            raise NotDeclared(
                f"{source} may not push {self.key}", fix=f"add {source} to `feeds:` of {self.pattern} in tightship.yaml"
            )

    def check_value(self, value: Json) -> None:
        """Type and size.

        Raises:
            InvalidArguments: another type, no JSON, or more bytes than `max_bytes`.
        """
        try:
            size = len(orjson.dumps(value))
        except (TypeError, ValueError) as error:
            raise InvalidArguments(f"the value of {self.key} is no JSON: {error}", fix="write JSON values") from None
        if size > self.spec.max_bytes:
            raise InvalidArguments(
                f"the value of {self.key} has {size:,} bytes, more than its {self.spec.max_bytes:,}",
                fix=f"write a reference in its place, or raise `max_bytes:` of {self.pattern}",
            )
        shape_of(self.spec.value_schema).require(value, f"the value of {self.key}", InvalidArguments)

    def check_as_of(self, as_of: float | None, now: float) -> None:
        """Whether the source's time can be true.

        Raises:
            InvalidArguments: it lies further in the future than clocks may differ.
        """
        if as_of is None:
            return
        if isinstance(as_of, bool) or not isinstance(as_of, int | float) or not 0 < as_of < 1e11:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArguments(f"the as-of time {as_of!r} of {self.key} is no time", fix="give seconds since 1970")
        if as_of > now + self.spec.skew:
            raise InvalidArguments(
                f"the as-of time of {self.key} lies {as_of - now:,.0f} s in the future",
                fix=f"set the source's clock, or raise `skew:` of {self.pattern} if clocks differ that much",
            )


class Declarations:
    """The keys that a workspace declares. A literal key goes before a pattern, a pattern with fewer stars first."""

    def __init__(self, keys: Mapping[str, ContextKey]) -> None:
        self._exact = {key: spec for key, spec in keys.items() if "*" not in key}
        self._patterns = sorted(((key, spec) for key, spec in keys.items() if "*" in key), key=_stars)
        self._known: dict[str, Declared] = {}

    def __bool__(self) -> bool:
        return bool(self._exact or self._patterns)

    def of(self, key: Any) -> Declared:
        """The declaration of a key.

        Raises:
            InvalidArguments: it is no key. UnknownName: it is not declared.
        """
        found = self._known.get(key) if isinstance(key, str) else None
        if found is None:
            found = self._find(key)
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[found.key] = found
        return found

    def _find(self, key: Any) -> Declared:
        try:
            name = check_key(key)
        except ValueError as error:
            raise InvalidArguments(str(error)) from None
        if name in self._exact:
            return Declared(name, name, self._exact[name])
        for pattern, spec in self._patterns:
            parts = matches(pattern, name)
            if parts is not None:
                return Declared(name, pattern, spec, parts)
        near = did_you_mean(name, [*self._exact, *(pattern for pattern, _ in self._patterns)])
        raise UnknownName(f"the shared context has no key {name!r}", fix=f"{near} (declare keys in tightship.yaml)")


def _stars(item: tuple[str, ContextKey]) -> tuple[int, str]:
    return item[0].count("*"), item[0]
