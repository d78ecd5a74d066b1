"""A file of inputs: read once, judged line by line before anything is started, each line with its reference."""

from __future__ import annotations

import codecs
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

import orjson

from tightship.core import exact
from tightship.core.errors import InputRejected, TightshipError
from tightship.core.ids import derived_id

if TYPE_CHECKING:
    from tightship.ledger import Ledger
    from tightship.workflow.models import WorkflowSpec

IN_MEMORY: Final = 64 * 1024 * 1024
"""Bytes of input that are kept in memory; more lie in an unnamed temporary file."""
ASIDE: Final = "expected"
"""A field that a line may carry beside its input: what should come out. It is never given to the workflow."""
REHEARSED: Final = "rehearsal/"
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Line:
    """One line that fits: its number, its reference, the input, and what it expects (or None)."""

    number: int
    reference: str
    input: Mapping[str, Any]
    expected: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One line that does not: `where` is `file:line`."""

    where: str
    message: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """All fields by name."""
        return {"where": self.where, "message": self.message, "fix": self.fix}


class Batch:
    """The lines of one file, as they were when it was read.

    Args:
        source: the file, open in binary mode.
        label: what the file is called in messages.
        spec: the workflow, whose declared input each line has to fit.
        name: the batch; by default the hash of the file, so that the same file is the same batch.
        limit: bytes that one line may have.
    """

    def __init__(
        self, source: IO[bytes], label: str, spec: WorkflowSpec, name: str = "", limit: int = 1_000_000
    ) -> None:
        self.label = label
        self.problems: list[Problem] = []
        self.fitting = 0
        self._spec = spec
        self._limit = limit
        self._bad: set[int] = set()
        self._kept = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed by __exit__
        try:
            digest = self._keep(source)
            self.name = name or digest
            self._judge()
        except BaseException:
            self._kept.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def lines(self) -> Iterator[Line]:
        """The lines that fit, in order."""
        seen: dict[bytes, int] = {}
        for number, data in self._raw():
            if number not in self._bad:
                yield self._line(number, data, seen)

    # --- reading ---------------------------------------------------------------------------------

    def _keep(self, source: IO[bytes]) -> str:
        """Copy the source, so that a file that changes meanwhile is not two files; returns its hash."""
        digest = hashlib.sha256()
        first = True
        while block := source.read(1 << 20):
            if first:  # editors of some systems put a mark of byte order before UTF-8
                block, first = block.removeprefix(codecs.BOM_UTF8), False
            digest.update(block)
            self._kept.write(block)
        return digest.hexdigest()[:12]

    def _raw(self) -> Iterator[tuple[int, bytes]]:
        """Line numbers with their bytes; empty lines are passed over, of overlong ones only the beginning is given."""
        self._kept.seek(0)
        number = 0
        while data := self._kept.readline(self._limit + 2):
            number += 1
            part = data
            while not part.endswith(b"\n") and (part := self._kept.readline(self._limit + 2)):
                continue
            if data.strip():
                yield number, data

    def _judge(self) -> None:
        seen: dict[bytes, int] = {}
        ids: dict[str, int] = {}
        for number, data in self._raw():
            try:
                line = self._line(number, data, seen)
                first = ids.setdefault(line.reference, number)
                if first != number:
                    raise InputRejected(f"its id is that of line {first}", fix="give each line an id of its own")
            except TightshipError as error:
                self._reject(number, error.message, error.fix or "")
            else:
                self.fitting += 1

    def _reject(self, number: int, message: str, fix: str) -> None:
        self._bad.add(number)
        self.problems.append(Problem(f"{self.label}:{number}", message, fix))

    def _line(self, number: int, data: bytes, seen: dict[bytes, int]) -> Line:
        from tightship.workflow.types import check_input

        if len(data.rstrip(b"\r\n")) > self._limit:
            raise InputRejected(f"the line has more than {self._limit:,} bytes", fix="raise settings.input_bytes")
        value = parse(data)
        declared = self._spec.input
        expected = value.pop(ASIDE, None) if ASIDE not in declared else None
        given_id = value.get("id") if "id" in declared else value.pop("id", None)
        reference = self._reference(given_id, value, seen)
        fitting = check_input(declared, value, self._spec.workflow)
        return Line(number, f"{self.name}/{reference}", fitting, expected if isinstance(expected, dict) else None)

    @staticmethod
    def _reference(given: Any, value: Mapping[str, Any], seen: dict[bytes, int]) -> str:
        """The line's own id, else a hash of its content; equal lines without an id are different work."""
        if isinstance(given, (str, int)) and not isinstance(given, bool) and str(given):
            return str(given)
        digest = hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()
        count = seen[digest] = seen.get(digest, 0) + 1
        return digest.hex()[:16] + (f"~{count}" if count > 1 else "")

    # --- what was run before ---------------------------------------------------------------------

    async def compare(self, ledger: Ledger, tenant: str = "default") -> int:
        """Look which lines were run before; one whose content has changed since is a problem.

        Returns: how many were run before with the same input.
        """
        before = 0
        chunk: dict[str, Line] = {}
        for line in self.lines():
            chunk[derived_id("r", tenant, self._spec.workflow, line.reference)] = line
            if len(chunk) == _CHUNK:
                before += await self._compare(ledger, chunk)
                chunk = {}
        return before + await self._compare(ledger, chunk)

    async def _compare(self, ledger: Ledger, lines: Mapping[str, Line]) -> int:
        from tightship.runtime.repeats import known, other_input

        same, other = await known(ledger, {run: line.input for run, line in lines.items()})
        for run in sorted(other, key=lambda one: lines[one].number):
            error = other_input(run, "use another --batch or --new to run it anew")
            self._reject(lines[run].number, error.message, error.fix or "")
            self.fitting -= 1
        return len(same)


def parse(data: bytes | str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputRejected: it is none.
    """
    try:
        value = exact.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputRejected(f"it is no JSON: {error.msg} (column {error.colno})", fix="write one JSON object") from None
    if not isinstance(value, dict):
        raise InputRejected(f"it is a JSON {_kind(value)}, not an object", fix='write {"field": value, …}')
    return value


def _kind(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def open_source(path: str) -> tuple[IO[bytes], str]:
    """A file of inputs, or stdin for `-`, with its name in messages.

    Raises:
        InputRejected: it cannot be read.
    """
    import sys

    if path == "-":
        return sys.stdin.buffer, "stdin"
    try:
        if Path(path).is_dir():
            raise IsADirectoryError(21, "it is a folder", path)
        return Path(path).open("rb"), path
    except OSError as error:
        raise InputRejected(
            f"the file cannot be read: {error.strerror}", where=path, fix="name a file with one JSON object a line"
        ) from None
