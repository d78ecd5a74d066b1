"""Opening a workspace for a command: whole to execute, leniently to look and to stop things."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightship.cli._shell import Shell
from tightship.core.errors import StoreMissing, WorkspaceMissing
from tightship.core.world import World
from tightship.runtime.workspace import Workspace


@asynccontextmanager
async def executing(shell: Shell, rehearse: bool = False) -> AsyncGenerator[Workspace]:
    """The workspace, to run something in it: every file has to be right.

    Raises:
        WorkspaceMissing, LoadError: as `Workspace.open`.
    """
    workspace = Workspace.open(shell.folder, rehearse=rehearse)
    try:
        yield workspace
    finally:
        await workspace.close()


@asynccontextmanager
async def looking(shell: Shell) -> AsyncGenerator[Workspace]:
    """The workspace, to look at it, to decide, to cancel and to halt: beside a process that executes.

    A broken file of an agent or a workflow keeps nobody from stopping it: only tightship.yaml has to be right, since
    it says where the store is and who may decide.

    Raises:
        WorkspaceMissing: no tightship.yaml. LoadError: it is wrong. StoreMissing: nothing was ever run here.
    """
    workspace = open_leniently(shell.folder)
    workspace.create = False
    if workspace.place.url is None:
        _see_files(workspace)
    try:
        yield workspace
    finally:
        await workspace.close()


def _see_files(workspace: Workspace) -> None:
    """The store's files are there.

    Raises:
        StoreMissing: nothing was ever run here, or a part of the store is gone.
    """
    if not (workspace.folder / "ledger.db").exists():
        if (workspace.folder / "keys" / "keys.db").exists():
            raise StoreMissing(
                "the ledger's database is gone; the keystore has keys of what was in it",
                where=str(workspace.folder / "ledger.db"),
                fix="restore it from your backup",
            )
        raise StoreMissing(
            "there is no store here: nothing has been run in this workspace",
            where=str(workspace.folder),
            fix="run something (`tightship run WORKFLOW …`), or correct `store:` in tightship.yaml",
        )


def open_leniently(folder: Path) -> Workspace:
    """A workspace whose tightship.yaml is right, whatever its other files say.

    Raises:
        WorkspaceMissing, LoadError: about tightship.yaml.
    """
    from tightship.patterns import load_all
    from tightship.workflow.loader import CONFIG, load_workspace

    if not folder.is_dir():
        raise WorkspaceMissing(f"there is no folder {folder}", fix="name the folder of a workspace with -w")
    load_all()
    loaded = load_workspace(folder)
    for problem in loaded.problems:
        if problem.file == CONFIG:
            raise problem
    return Workspace(loaded.workspace, World())


@dataclass(frozen=True, slots=True)
class Executing:
    """Who executes on a workspace: a process where one does, or the living workers of a store that many share.

    A hint for people: the truth is the lock, or who claims.
    """

    pid: int | None = None
    workers: int = 0

    def __bool__(self) -> bool:
        return self.pid is not None or self.workers > 0

    @property
    def one(self) -> str:
        """Who does what one of them does."""
        if self.pid is not None:
            return f"process {self.pid}"
        return "the one worker" if self.workers == 1 else f"one of {self.workers} workers"

    @property
    def each(self) -> str:
        """Who does what each of them does."""
        return self.one if self.pid is not None or self.workers == 1 else f"each of {self.workers} workers"

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"executor": self.pid, "workers": self.workers}


async def executing_now(workspace: Workspace) -> Executing:
    """Who executes on this workspace at the moment."""
    if workspace.place.url is not None:
        return Executing(workers=len(await (await workspace.ledger()).living()))
    try:
        pid = int((workspace.folder / "executor.lock").read_text().strip() or "0")
        os.kill(pid, 0)
    except (OSError, ValueError, OverflowError):
        return Executing()
    return Executing(pid if pid > 0 else None)


def person(by: str | None) -> str:
    """Who decides: as said, else whoever is logged in."""
    import getpass

    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
