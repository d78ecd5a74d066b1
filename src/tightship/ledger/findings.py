"""What an audit finds, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

MAX_FINDINGS: Final = 1000
"""Findings that are kept; the rest is counted."""
Progress = Callable[[str, int, int], None]
"""Stage, how many are done, how many there are (0 where nobody knows). Called from another thread."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where the store is not what was written.

    Attributes:
        file: the file, relative to the store's folder.
        place: the table, row and column, or the part of the file; as exact as can be told.
        message: what is wrong there.
        severity: `damage`, or `note` for what is worth knowing and harms nothing.
    """

    file: str
    place: str
    message: str
    severity: Literal["damage", "note"] = "damage"

    def __str__(self) -> str:
        return f"{self.file}: {self.place}: {self.message}"

    def as_dict(self) -> dict[str, str]:
        """All fields by name."""
        return {"file": self.file, "place": self.place, "message": self.message, "severity": self.severity}


@dataclass(slots=True)
class AuditReport:
    """What was checked, and what was found.

    Attributes:
        entries, payloads, files, checkpoints, tiles, keys, rows: how many were checked (`rows` are the projections').
        erased: payloads that nobody can open any more because a key of theirs was destroyed on request.
        archived: entries in archives that were not looked at. archives: entries and values there that were.
        logs: entries by log, with those that have left. covered: how many of them lie under a signed checkpoint.
        found: damage in all, also where it is more than `findings` holds.
        integrated: what no checkpoint covered was put under one after the check.
    """

    entries: int = 0
    payloads: int = 0
    erased: int = 0
    files: int = 0
    checkpoints: int = 0
    tiles: int = 0
    keys: int = 0
    rows: int = 0
    archived: int = 0
    archives: int = 0
    logs: dict[str, int] = field(default_factory=dict[str, int])
    covered: dict[str, int] = field(default_factory=dict[str, int])
    found: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    integrated: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.found

    @property
    def uncovered(self) -> int:
        """Entries that no signed checkpoint covers yet."""
        return sum(self.logs.values()) - sum(self.covered.values())

    def add(self, file: str, place: str, message: str, severity: Literal["damage", "note"] = "damage") -> None:
        """Take a finding down."""
        self.found += severity == "damage"
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(file, place, message, severity))

    def explain(self, file: str, place: str, message: str) -> None:
        """Take down the damage from which the others follow: it comes first, however many there are."""
        self.found += 1
        self.findings.insert(0, Finding(file, place, message, "damage"))
        del self.findings[MAX_FINDINGS:]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        names = (
            "entries",
            "payloads",
            "erased",
            "files",
            "checkpoints",
            "tiles",
            "keys",
            "rows",
            "archived",
            "archives",
            "found",
        )
        return {
            "ok": self.ok,
            **{name: getattr(self, name) for name in names},
            "logs": dict(self.logs),
            "covered": dict(self.covered),
            "uncovered": self.uncovered,
            "integrated": self.integrated,
            "findings": [finding.as_dict() for finding in self.findings],
        }
