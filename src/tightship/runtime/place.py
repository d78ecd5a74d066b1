"""Where a workspace's store is, as tightship.yaml says it: a folder below the workspace, or a database."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tightship.core.errors import StoreError, StoreMissing
from tightship.workflow.config import Store

FOLDER = ".tightship"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Place:
    """A store's place.

    Attributes:
        folder: the store's folder; of a database, the one with the master key.
        url: the database's URL, or None. keys: that of the keystore where it is another one.
    """

    folder: Path
    url: str | None = field(default=None, repr=False)
    keys: str | None = field(default=None, repr=False)

    @property
    def where(self) -> Path | str:
        """What `Ledger.open` takes."""
        return self.url or self.folder


def place_of(store: Store, root: Path, environ: Mapping[str, str] | None = None) -> Place:
    """The place that a workspace's settings name.

    Args:
        store: the setting. root: the workspace's folder.
        environ: what `${NAME}` stands for; the environment by default.

    Raises:
        StoreError: a variable is not set. StoreMissing: there is no store of that kind.
    """
    environ = os.environ if environ is None else environ
    keys = expand(store.keys, environ) if store.keys else None
    return place_at(expand(store.url, environ), root, keys)


def place_at(url: str, root: Path, keys: str | None = None) -> Place:
    """The place that a URL names in which nothing has to be put any more.

    Raises:
        StoreMissing: there is no store of that kind.
    """
    scheme, _, rest = url.partition(":")
    if scheme in ("postgresql", "postgres"):
        return Place((root / FOLDER).resolve(), url, keys)
    if scheme != "sqlite" or not rest.removeprefix("//"):
        named = bool(rest) and _SCHEME.fullmatch(scheme)  # what is no URL at all may hold a password
        raise StoreMissing(
            f"there is no store of the kind {scheme[:40]!r} that runs could be kept in"
            if named
            else "the store's URL does not begin with a kind of store",
            fix="use `sqlite:.tightship`, or `postgresql://…`",
        )
    return Place((root / rest.removeprefix("//")).resolve())


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Put environment variables in place of `${NAME}`: as they are where one is the whole, else encoded for a URL.

    Raises:
        StoreError: one is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = environ.get(match[1])
        if not found:
            raise StoreError(
                f"the environment variable {match[1]}, which the store's URL names, is not set",
                fix=f"export {match[1]}=…",
            )
        return found if match[0] == text else quote(found, safe="")

    return _VARIABLE.sub(value, text)
