"""A disk of a few megabytes, to be filled to the last byte and freed again."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest


class SmallDisk:
    """A file system of its own at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave no byte."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size) == size:
                        pass
            try:
                file.write(b"\0")
            except OSError as error:
                assert error.errno == errno.ENOSPC
            else:
                raise AssertionError("there is still room")

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int, owner: str) -> Generator[SmallDisk]:
    """Mount a tmpfs; a machine where that is not allowed skips the test.

    Args:
        path: an empty folder. owner: the user whose folder it becomes.
    """
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(path)]
    ways = [[], ["sudo", "-n"]]
    sudo = next((way for way in ways if _ran([*way, *command])), None)
    if sudo is None:
        pytest.skip("mounting a tmpfs needs root")
    try:
        subprocess.run([*sudo, "chown", owner, str(path)], check=True)
        yield SmallDisk(path)
    finally:
        subprocess.run([*sudo, "umount", "-l", str(path)], check=False)


def _ran(command: list[str]) -> bool:
    try:
        return (
            subprocess.run(command, check=False, capture_output=True, env={**os.environ, "LC_ALL": "C"}).returncode == 0
        )
    except OSError:
        return False
