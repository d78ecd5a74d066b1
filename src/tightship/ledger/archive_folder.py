"""The folder of an archive: bundles of entries, values as they were sealed, and what proves them, all by itself.

manifest.json             what is in it, with the SHA-256 of every file
LOG/checkpoint, LOG/tile  C2SP tlog-tiles: the signed root, all tiles, the entry bundles that have left
LOG.vkey                  the log's public key
values.jsonl              address, scope, sealed bytes (base64) and checksum of each value that has left
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson

from tightship.core.errors import Archived, LedgerError, TamperError
from tightship.ledger.entries import Entry, decode, payload_crc
from tightship.ledger.merkle.checkpoint import parse_checkpoint
from tightship.ledger.merkle.export import FolderLog
from tightship.ledger.merkle.keys import Verifier, parse_vkey
from tightship.ledger.merkle.tiles import ENTRIES, TILE_WIDTH, Tile, TileTree, decode_bundle, tiles_of
from tightship.ledger.merkle.tree import leaf_hashes

MANIFEST: Final = "manifest.json"
VALUES: Final = "values.jsonl"
_FORMAT: Final = 1
Value = tuple[bytes, str, bytes, int]
"""Address, scope, sealed bytes, checksum."""


class FolderWriter:
    """Writes the files of a new archive, each on the disk before the next; remembers their hashes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, str] = {}
        root.mkdir(parents=True)

    def write(self, name: str, data: bytes) -> None:
        """A file of its own."""
        self.stream(name, iter((data,)))

    def stream(self, name: str, parts: Iterator[bytes]) -> None:
        """A file in parts."""
        path, digest = self.root / name, hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for part in parts:
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        self.files[name] = digest.hexdigest()

    def finish(self, facts: dict[str, Any]) -> str:
        """Write the manifest, and see to it that every name is on the disk; returns the manifest's SHA-256."""
        text = orjson.dumps(
            {"format": _FORMAT, **facts, "files": self.files}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
        )
        self.write(MANIFEST, text)
        for folder, _, _ in os.walk(self.root):
            sync_folder(Path(folder))
        return hashlib.sha256(text).hexdigest()


def name_of(log: str) -> str:
    """The name that a log's folder has: one in the archive, whatever the log is called."""
    quoted = quote(log, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def sync_folder(folder: Path) -> None:
    """Names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def line_of(value: Value) -> bytes:
    """A value's line."""
    address, scope, sealed, crc = value
    fields = {"address": address.hex(), "scope": scope, "sealed": b64encode(sealed).decode(), "crc": crc}
    return orjson.dumps(fields) + b"\n"


class ArchiveFolder:
    """An archive, to be read. Nothing of it is believed before `check`.

    Raises LedgerError when there is no archive in the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            text = (root / MANIFEST).read_bytes()
        except OSError as error:
            raise LedgerError(
                f"there is no archive here: {MANIFEST} cannot be read ({error.strerror})",
                where=str(root),
                fix="name the folder that `tightship store archive` has written",
            ) from None
        self.manifest = hashlib.sha256(text).hexdigest()
        try:
            stated = orjson.loads(text)
            self.logs: dict[str, tuple[int, int]] = {
                log: (known["first"], known["last"]) for log, known in stated["logs"].items()
            }
            self.values: int = stated["values"]
            self._files: dict[str, str] = dict(stated["files"])
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise TamperError(f"{MANIFEST} is no manifest: {error!r}", where=str(root)) from None

    def check(self, keys: dict[str, Verifier], progress: Callable[[int], None] = lambda done: None) -> None:
        """Every file is as the manifest says, every entry leads to a signed root, every value is whole.

        Args:
            keys: by log; of a log that is not among them, the key beside it is taken.
            progress: told how many entries were checked.

        Raises:
            TamperError: something is not what was written.
        """
        for name, digest in self._files.items():
            if self._digest(name) != digest:
                raise TamperError(f"{name} is missing or not what was written", where=str(self.root))
        done = 0
        for log, (first, last) in self.logs.items():
            folder = FolderLog(self.root / name_of(log))
            head = parse_checkpoint(folder.note.decode(), [keys.get(log) or self._key(log)]).checkpoint
            tree = TileTree(folder, head.size)
            if tree.root() != head.root:
                raise TamperError(f"the tiles of log {log!r} do not lead to the signed root", where=str(self.root))
            for tile in tiles_of(head.size):
                tree.tile(tile)
            for start in range(first - 1, last, TILE_WIDTH):
                found = self._bundle(log, start // TILE_WIDTH)
                if b"".join(leaf_hashes(found)) != folder.get(0, start // TILE_WIDTH):
                    raise TamperError(f"entries from {start + 1} on are not what was signed", where=str(self.root))
                done += TILE_WIDTH
                progress(done)
        if sum(1 for _ in self.sealed()) != self.values:
            raise TamperError(f"{VALUES} does not hold {self.values:,} values", where=str(self.root))

    def entries(self, log: str, start: int, count: int) -> list[bytes]:
        """Entries from an index on, which counts from 0, as far as they are here."""
        first, last = self.logs.get(log, (1, 0))
        found: list[bytes] = []
        while first - 1 <= start < last and len(found) < count:
            bundle = self._bundle(log, start // TILE_WIDTH)[start % TILE_WIDTH :][: count - len(found)]
            found += bundle
            start += len(bundle)
        return found

    def tile(self, log: str, index: int) -> bytes | None:
        """The hashes of a bundle's entries as this archive has them."""
        return FolderLog(self.root / name_of(log)).get(0, index)

    def sealed(self) -> Iterator[Value]:
        """The values, their checksums compared.

        Raises:
            TamperError: one is not what was written.
        """
        with (self.root / VALUES).open("rb") as file:
            for line in file:
                try:
                    known = orjson.loads(line)
                    raw, scope, crc = bytes.fromhex(known["address"]), str(known["scope"]), int(known["crc"])
                    data = b64decode(known["sealed"], validate=True)
                except (ValueError, KeyError, TypeError) as error:
                    raise TamperError(f"a line of {VALUES} is no value: {error!r}", where=str(self.root)) from None
                if payload_crc(raw, scope, data) != crc:
                    raise TamperError(f"value {raw.hex()} is not what was written", where=str(self.root))
                yield raw, scope, data, crc

    def _bundle(self, log: str, index: int) -> list[bytes]:
        path = self.root / name_of(log) / Tile(ENTRIES, index).path
        try:
            found = decode_bundle(path.read_bytes())
        except OSError as error:
            raise TamperError(f"{path} cannot be read: {error.strerror}", where=str(self.root)) from None
        if len(found) != TILE_WIDTH:
            raise TamperError(f"{path} holds {len(found)} entries", where=str(self.root))
        return found

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise TamperError(f"{MANIFEST} names a file outside: {name!r}", where=str(self.root))
        try:
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
        except OSError:
            return ""
        return digest.hexdigest()

    def _key(self, log: str) -> Verifier:
        return parse_vkey((self.root / f"{name_of(log)}.vkey").read_text("utf-8").strip())


class Archives:
    """Several archives of one store, read as one."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [ArchiveFolder(folder) for folder in folders]

    def entries(self, log: str, start: int, count: int) -> list[bytes]:
        """Entries from an index on, which counts from 0, out of the archive that has them."""
        return next((found for one in self.folders if (found := one.entries(log, start, count))), [])

    def pages(self, log: str, upto: int) -> Iterator[list[Entry]]:
        """All entries of a log up to a position, which no folder may be missing for.

        Raises:
            Archived: the archive that has them is not among these.
        """
        at = 0
        while at < upto:
            found = self.entries(log, at, TILE_WIDTH)
            if not found:
                raise missing(log, at + 1)
            yield [decode(log, n, data) for n, data in enumerate(found, start=at + 1)]
            at += len(found)


def missing(log: str, n: int) -> Archived:
    """The error for an entry that is in no archive that was named."""
    return Archived(
        f"entry {n} of log {log!r} has left the store for an archive",
        fix="name the folders of all archives, each with --archive DIR",
    )
