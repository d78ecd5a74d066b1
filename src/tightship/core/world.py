"""Time, chance, disk and network as ports, so that a whole fleet can run from one seed in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Store time: seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds of this clock."""
        ...


class Chance(Protocol):
    """Where randomness comes from."""

    def token(self, size: int) -> bytes:
        """That many unpredictable bytes."""
        ...

    def uniform(self) -> float:
        """A float in [0, 1)."""
        ...


class Disk(Protocol):
    """Where large payloads lie, by content address."""

    def write(self, name: str, data: bytes) -> None:
        """Store durably (fsync'd, folder included) before returning; the same name twice is no error."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes, or None when there is no such file."""
        ...


class SystemClock:
    """The machine's clock."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        await asyncio.sleep(seconds)


class SystemChance:
    """The operating system's random source, read in blocks because a system call per token is slow."""

    _BLOCK = 8192

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def token(self, size: int) -> bytes:
        """Unpredictable bytes; each byte is given out once."""
        end = self._at + size
        if end > len(self._pool):
            self._pool = os.urandom(max(self._BLOCK, size))
            self._at, end = 0, size
        token = self._pool[self._at : end]
        self._at = end
        return token

    def uniform(self) -> float:
        """A float in [0, 1)."""
        return random.random()


class SeededChance:
    """Randomness from one seed, for simulation and rehearsal; never for keys of a real store."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        """The next bytes of the seeded stream."""
        return self._random.randbytes(size)

    def uniform(self) -> float:
        """The next float in [0, 1) of the seeded stream."""
        return self._random.random()


class FolderDisk:
    """Files in a folder of the store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name[2:]

    def write(self, name: str, data: bytes) -> None:
        """Write aside, fsync, rename, fsync the folder: a crash leaves the whole file or none."""
        path = self._path(name)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        try:
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        for folder in (path.parent, self._folder):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def read(self, name: str) -> bytes | None:
        """The file's bytes, or None."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None


class MemoryDisk:
    """Files in a dict: the twin for tests and simulation."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def write(self, name: str, data: bytes) -> None:
        """Keep the bytes."""
        self.files[name] = data

    def read(self, name: str) -> bytes | None:
        """The bytes, or None."""
        return self.files.get(name)


@dataclass(slots=True)
class World:
    """The ports that everything non-deterministic goes through.

    `transport` is an httpx2 transport for outside HTTP, or None for the real network.
    """

    clock: Clock = field(default_factory=SystemClock)
    chance: Chance = field(default_factory=SystemChance)
    transport: Any = None
