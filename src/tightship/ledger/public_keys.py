"""The public keys of the logs in the file beside the store, for whoever verifies them without us."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tightship.core.errors import StoreReadOnly

PUBLIC_KEYS: Final = "log.vkey"
"""The file's name; it has one key a line."""


def read_keys(path: Path) -> dict[str, str]:
    """Public keys by origin; none where there is no file.

    Raises:
        StoreReadOnly: the file cannot be read.
    """
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreReadOnly(f"the public keys cannot be read: {error.strerror}", where=PUBLIC_KEYS) from None
    return {line.partition("+")[0]: line for line in text.splitlines() if line}


def lines_of(keys: Mapping[str, str]) -> str:
    """The file's text."""
    return "".join(f"{line}\n" for line in sorted(keys.values()))


def write_keys(path: Path, keys: Mapping[str, str]) -> None:
    """Write the file, whole or not at all.

    Raises:
        StoreReadOnly: it cannot be written.
    """
    draft = path.with_name(f"{PUBLIC_KEYS}.new")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(lines_of(keys))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError as error:
        raise StoreReadOnly(f"the public keys cannot be written: {error.strerror}", where=str(path)) from None
