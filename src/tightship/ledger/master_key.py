"""The master key, which wraps all others: from the environment, or in a file that only its owner can read."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import threading
from pathlib import Path

from tightship.core.errors import StoreCorrupt, StoreError, StoreMissing, StoreReadOnly
from tightship.ledger.keyring import KEY_BYTES

MASTER_VARIABLE = "TIGHTSHIP_MASTER_KEY"


def load_master(path: Path, create: bool = True) -> bytes:
    """The master key: from the environment variable (base 64, 32 bytes) or from its file, made on first use.

    Args:
        path: the key's file.
        create: make the file when it is not there. There is a keystore already: only its own key opens it.

    Raises:
        StoreError: the key has a wrong length, or the file can be read by others.
        StoreMissing: there is no file and none may be made. StoreReadOnly: it cannot be read or made.
    """
    given = os.environ.get(MASTER_VARIABLE)
    if given:
        try:
            key = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise StoreError(
                f"{MASTER_VARIABLE} is not 32 bytes in base 64",
                fix="openssl rand -base64 32",
            )
        return key
    try:
        if not path.exists():
            if not create:
                raise StoreMissing(
                    "the master key is not there, and only it opens the keys of this store",
                    where=str(path),
                    fix=f"restore it from your backup, or set {MASTER_VARIABLE}",
                )
            _create_master(path)
        if path.stat().st_mode & 0o077:
            raise StoreError(
                "the master key can be read by others",
                where=str(path),
                fix=f"chmod 600 {path}",
            )
        key = path.read_bytes()
    except OSError as error:
        raise StoreReadOnly(f"the master key cannot be read or made: {error.strerror}", where=str(path)) from None
    if len(key) != KEY_BYTES:
        raise StoreCorrupt(
            "the master key is damaged",
            where=str(path),
            fix="restore it from your backup",
        )
    return key


def _create_master(path: Path) -> None:
    """Whole and on the disk, or not there at all; when two processes make one, the first one's stands."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, os.urandom(KEY_BYTES))
        os.fsync(handle)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.close(handle)
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
