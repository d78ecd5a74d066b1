"""Secrets from the environment and from files, read at the moment of use and never kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from tightship.core.errors import LoadError, UnknownName
from tightship.core.ports import Secrets

_MAX_BYTES = 65_536


class EnvironmentSecrets:
    """Environment variables: the secret `NAME` is the variable `<prefix>NAME`."""

    def __init__(self, prefix: str = "", environment: Mapping[str, str] | None = None) -> None:
        self._prefix = prefix
        self._environment = os.environ if environment is None else environment

    def get(self, name: str) -> str:
        """The variable's value.

        Raises:
            UnknownName: it is not set or empty.
        """
        value = self._environment.get(self._prefix + name)
        if not value:
            raise UnknownName(f"there is no secret {name!r}", fix=f"set the environment variable {self._prefix + name}")
        return value


class FileSecrets:
    """A file of `NAME=value` lines, or a folder with one file for each secret (as orchestrators mount them).

    A file that others may read is refused: a secret that leaked must not look as if it were one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, name: str) -> str:
        """The secret.

        Raises:
            UnknownName: there is none of that name.
            LoadError: the file may be read by others, is too large, or is no text.
        """
        if self._path.is_dir():
            if not name or "/" in name or name.startswith("."):
                raise UnknownName(f"{name!r} is no name of a secret")
            value = _read(self._path / name)
            if value:
                return value.strip("\r\n")
        else:
            for line in (_read(self._path) or "").splitlines():
                key, sign, value = line.partition("=")
                if sign and key.strip() == name and not line.lstrip().startswith("#"):
                    return value.strip()
        raise UnknownName(f"there is no secret {name!r} in {self._path}", fix=f"write it to {self._path} (mode 0600)")


class ChainSecrets:
    """Several places, asked in order."""

    def __init__(self, places: Sequence[Secrets]) -> None:
        self._places = tuple(places)

    def get(self, name: str) -> str:
        """The secret of the first place that has it.

        Raises:
            UnknownName: none has it.
        """
        fixes: list[str] = []
        for place in self._places:
            try:
                return place.get(name)
            except UnknownName as error:
                fixes.append(error.fix or "")
        raise UnknownName(f"there is no secret {name!r}", fix=" or ".join(fix for fix in fixes if fix) or None)


def default_secrets(workspace: Path) -> Secrets:
    """The environment first, then `.secrets` of the workspace (a file or a folder, readable by its owner alone)."""
    return ChainSecrets([EnvironmentSecrets(), FileSecrets(workspace / ".secrets")])


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise LoadError(
                    f"others may read this file of secrets (mode {mode:04o})", file=str(path), fix=f"chmod 600 {path}"
                )
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        return None
    except OSError as error:
        raise LoadError(f"this file of secrets cannot be read: {error.strerror}", file=str(path)) from None
    if len(data) > _MAX_BYTES:
        raise LoadError(f"this file of secrets has more than {_MAX_BYTES} bytes", file=str(path))
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise LoadError("this file of secrets is no UTF-8 text", file=str(path)) from None
