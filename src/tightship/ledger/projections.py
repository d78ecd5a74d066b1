"""The projections that every ledger has, and the folding of entries into one delta per row and batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tightship.core import kinds
from tightship.core.ports import Delta, EntryView, Projection


class RunsProjection:
    """The truth of ownership: one row a run. `wake_at` and `last_signal` say when a parked run is due."""

    table = "runs"
    key_columns: Sequence[str] = ("id",)
    kinds = frozenset({kinds.STARTED, kinds.CLAIMED, kinds.PARKED, kinds.ENDED, kinds.SIGNAL})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """The change of the run's row."""
        if not entry.run:
            return ()
        return (Delta((entry.run,), _RUN_CHANGES[entry.kind](entry)),)


def _started(entry: EntryView) -> dict[str, object]:
    body = entry.body
    return {
        "log": entry.log,
        "tenant": body.get("tenant", ""),
        "workflow": body["workflow"],
        "version": body.get("version", ""),
        "state": "running" if body.get("owner") else "queued",
        "epoch": entry.epoch,
        "owner": body.get("owner", ""),
        "build": body.get("build", ""),
        "priority": body.get("priority", 0),
        "parent": body.get("parent", ""),
        "reference": body.get("reference", ""),
        "input": body.get("input", ""),
        "live": int(body.get("live", True)),
        "started_at": entry.at,
    }


def _claimed(entry: EntryView) -> dict[str, object]:
    body = entry.body
    return {
        "state": "running",
        "epoch": entry.epoch,
        "owner": body.get("owner", ""),
        "build": body.get("build", ""),
    }


def _parked(entry: EntryView) -> dict[str, object]:
    body = entry.body
    return {
        "state": "parked",
        "owner": "",
        "wake_at": body.get("wake_at", 0.0),
        "seen": body.get("seen", 0),
    }


def _ended(entry: EntryView) -> dict[str, object]:
    body = entry.body
    changes: dict[str, object] = {
        "state": "ended",
        "owner": "",
        "outcome": body["outcome"],
        "reason": body.get("reason", ""),
        "ended_at": entry.at,
    }
    for name in (
        "output",
        "package",
        "usd",
        "tokens_in",
        "tokens_out",
        "calls",
        "seconds",
        "seen",
    ):
        if name in body:
            changes[name] = body[name]
    return changes


def _signal(entry: EntryView) -> dict[str, object]:
    # A parked run is due at once; a running one cannot park before it has read it, and sets its time anew.
    wake = _WAKES.get(entry.body.get("type", ""), 0.0)  # 0: due at once, whatever the clock says
    return {"last_signal": entry.n} if wake is None else {"last_signal": entry.n, "wake_at": wake}


_WAKES = {"take": kinds.NEVER, "do": None, "edit": None}
"""What a person does to a run that they have in hand moves nothing until they give it back."""


_RUN_CHANGES = {
    kinds.STARTED: _started,
    kinds.CLAIMED: _claimed,
    kinds.PARKED: _parked,
    kinds.ENDED: _ended,
    kinds.SIGNAL: _signal,
}


class ErasuresProjection:
    """The data subjects whose keys were destroyed: read at every start, so that no backup brings them back."""

    table = "erasures"
    key_columns: Sequence[str] = ("subject",)
    kinds = frozenset({kinds.ERASED})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """By whom and when."""
        body = entry.body
        return (Delta((body["subject"],), {"by_whom": body.get("by") or "", "at": entry.at}),)


class ArchivesProjection:
    """What has left for archives, and where to: by the positions of the entries that say so."""

    table = "archives"
    key_columns: Sequence[str] = ("n",)
    kinds = frozenset({kinds.SNAPSHOT})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """The archive; pages of rows are of no interest by themselves."""
        body = entry.body
        if "table" in body:
            return ()
        known = {name: body[name] for name in ("folder", "manifest", "detail", "before")}
        return (Delta((entry.n,), {**known, "at": entry.at}),)


Deltas = dict[str, dict[tuple[object, ...], Delta]]
"""Table -> row key -> what changes in it."""


class Folder:
    """Folds entries into deltas, one per table and row."""

    def __init__(self, projections: Iterable[Projection]) -> None:
        self.projections = tuple(projections)
        self.tables = {projection.table: tuple(projection.key_columns) for projection in self.projections}
        self._by_kind: dict[str, list[Projection]] = {}
        for projection in self.projections:
            for kind in projection.kinds:
                self._by_kind.setdefault(kind, []).append(projection)

    def changes(self, entry: EntryView, into: list[tuple[str, Delta]]) -> None:
        """Add the entry's changes to the list.

        Raises:
            Exception: whatever a projection raises on a body that lacks what its kind has.
        """
        for projection in self._by_kind.get(entry.kind, ()):
            for delta in projection.fold(entry):
                into.append((projection.table, delta))

    def fold(self, entry: EntryView, into: Deltas) -> None:
        """Merge the entry's changes into the batch's."""
        changes: list[tuple[str, Delta]] = []
        self.changes(entry, changes)
        merge(changes, into)


def merge(changes: Iterable[tuple[str, Delta]], into: Deltas) -> None:
    """Take changes into a batch: one delta per row."""
    for table, delta in changes:
        rows = into.get(table)
        if rows is None:
            rows = into[table] = {}
        known = rows.get(delta.key)
        if known is None:
            rows[delta.key] = delta
            continue
        known.set.update(delta.set)
        for column, amount in delta.add.items():
            known.add[column] = known.add.get(column, 0) + amount
