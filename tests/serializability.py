"""Whether a history of transactions is serializable: a cycle test on the direct serialization graph.

A. Adya, "Weak Consistency: A Generalized Theory and Optimistic Implementations for Distributed Transactions" (MIT,
1999), chapter 4: nodes are committed transactions; a write-read edge goes from who wrote a version to who read it, a
write-write edge to who wrote the next version, a read-write edge (anti-dependency) from who read a version to who wrote
the next one. The history is serializable exactly if it has no cycle (phenomena G0, G1c, G2) and nobody read what nobody
committed (G1a). As in Elle (K. Kingsbury and P. Alvaro, VLDB 14(3), 2020) the order of the versions of each key is known
here: versions are positions of the ledger, or lengths of lists that are only appended to.

It knows nothing of the product: a transaction is a set of reads and writes of numbered versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Transaction:
    """What one client did as one piece: the version of each key that it read, and that it wrote. Version 0 is the
    beginning, which nobody wrote."""

    name: str
    reads: Mapping[str, int] = field(default_factory=dict)
    writes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Edge:
    """That one transaction has to come before another, and why (`wr stock/a@3`)."""

    before: str
    after: str
    why: str


def edges(history: Sequence[Transaction]) -> list[Edge]:
    """The direct serialization graph.

    Raises:
        ValueError: a version was written twice, or read though nobody wrote it.
    """
    writers: dict[str, dict[int, str]] = {}
    for one in history:
        for key, version in one.writes.items():
            if version in writers.setdefault(key, {}):
                raise ValueError(f"{one.name} and {writers[key][version]} both wrote {key}@{version}")
            writers[key][version] = one.name
    order = {key: sorted(found) for key, found in writers.items()}
    found: list[Edge] = []
    for key, versions in order.items():
        for first, second in zip(versions, versions[1:], strict=False):
            found.append(Edge(writers[key][first], writers[key][second], f"ww {key}@{second}"))
    for one in history:
        for key, version in one.reads.items():
            if version and version not in writers.get(key, {}):
                raise ValueError(f"{one.name} read {key}@{version}, which nobody wrote")
            if version:
                found.append(Edge(writers[key][version], one.name, f"wr {key}@{version}"))
            following = next((later for later in order.get(key, ()) if later > version), None)
            if following is not None:
                found.append(Edge(one.name, writers[key][following], f"rw {key}@{version}"))
    return [edge for edge in found if edge.before != edge.after]


def cycle(history: Sequence[Transaction]) -> list[Edge]:
    """A cycle of the graph, or nothing when the history is serializable."""
    following: dict[str, list[Edge]] = {}
    for edge in edges(history):
        following.setdefault(edge.before, []).append(edge)
    state: dict[str, int] = {}
    for one in history:
        path = _search(one.name, following, state)
        if path:
            return path
    return []


def _search(start: str, following: Mapping[str, Iterable[Edge]], state: dict[str, int]) -> list[Edge]:
    """Depth-first search with a stack of its own; state 1: on the path, 2: done."""
    if state.get(start):
        return []
    path: list[Edge] = []
    stack = [(start, iter(following.get(start, ())))]
    state[start] = 1
    while stack:
        node, left = stack[-1]
        edge = next(left, None)
        if edge is None:
            state[node] = 2
            stack.pop()
            if path:
                path.pop()
            continue
        if state.get(edge.after) == 1:
            names = [one.before for one in path] + [node]
            return [*path, edge][names.index(edge.after) :]
        if not state.get(edge.after):
            state[edge.after] = 1
            path.append(edge)
            stack.append((edge.after, iter(following.get(edge.after, ()))))
    return []
