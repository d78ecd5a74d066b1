"""What every model of a workspace's files is made of: closed, immutable, and aware of where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from tightship.core.ports import Json
from tightship.workflow.conditions import Expression
from tightship.workflow.source import Mark, find_mark, plain
from tightship.workflow.types import object_schema

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+$", max_length=200)]
"""`service.operation`."""

Text = Annotated[str, Field(max_length=4000)]


def _fields(value: Any) -> Any:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError("write a mapping of names to types, for example {ticket: str}")
    object_schema(value)
    return plain(value)


Fields = Annotated[Mapping[str, Any], BeforeValidator(_fields)]
"""Declared fields: names to types in the shorthand of `types.py`."""


def listed(value: Any) -> Any:
    """One text or expression as a list of one."""
    return [value] if isinstance(value, str | Expression) else value


KEYWORD_FIELDS: Final = ConfigDict(
    extra="forbid",
    frozen=True,
    arbitrary_types_allowed=True,
    alias_generator=lambda name: name.rstrip("_"),
    validate_by_name=True,
    validate_by_alias=True,
)
"""Of a closed, immutable model with fields that are Python keywords: `if_` in Python, `if` in files."""

Texts = Annotated[tuple[Text, ...], BeforeValidator(listed)]
"""One text or a list of them."""


class Spec(BaseModel):
    """What the models of a workspace share: closed, immutable, and aware of the file they come from."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    _raw: Any = PrivateAttr(default=None)
    _file: str | None = PrivateAttr(default=None)

    def where(self, *path: str | int, key: bool = False) -> Mark | None:
        """Where a field stands (the nearest part of the path that exists), or None outside files."""
        found = find_mark(self._raw, path, key=key)
        if found is None and self._file is not None:
            return Mark(self._file, 1, 1)
        return found

    def to_data(self) -> dict[str, Json]:
        """Itself as JSON, complete with defaults; validating it gives an equal object."""
        return self.model_dump(mode="json", by_alias=True)
