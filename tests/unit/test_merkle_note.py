"""Notes and checkpoints open only when a trusted key signed exactly this text."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.checkpoint import (
    Checkpoint,
    check_consistency,
    parse_checkpoint,
    parse_checkpoint_text,
    sign_checkpoint,
)
from tightship.ledger.merkle.keys import (
    CosignatureSigner,
    CosignatureVerifier,
    NoteSigner,
    NoteVerifier,
    generate_signer,
    parse_skey,
    parse_vkey,
)
from tightship.ledger.merkle.note import MAX_NOTE_BYTES, add_signatures, open_note, sign_note
from tightship.ledger.merkle.tiles import MemoryTiles, TileTree, integrate
from tightship.ledger.merkle.tree import EMPTY_ROOT, leaf_hashes

# The example in the documentation of Go's sumdb/note package.
SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
SIGNED = f"{TEXT}\n— PeterNeumann {SIGNATURE}\n"

LOG = NoteSigner("example.com/log", b"\1" * 32)
WITNESS = CosignatureSigner("witness.example/w1", b"\2" * 32, now=lambda: 1_679_315_147)
STRANGER = NoteSigner("example.com/stranger", b"\3" * 32)
HEAD = Checkpoint("example.com/log", 2, leaf_hashes([b"a"])[0])


def test_the_example_of_gos_documentation_is_signed_and_opened_alike() -> None:
    signer = parse_skey(SKEY)
    assert signer.vkey == VKEY
    assert signer.skey() == SKEY
    assert sign_note(TEXT, signer) == SIGNED
    note = open_note(SIGNED, [parse_vkey(VKEY)])
    assert note.text == TEXT
    assert [signature.name for signature in note.signatures] == ["PeterNeumann"]


def test_keys_survive_their_text_form_and_do_not_show_their_secret() -> None:
    signer = generate_signer("example.com/new")
    again = parse_skey(signer.skey())
    assert (again.name, again.key_id, again.vkey) == (signer.name, signer.key_id, signer.vkey)
    assert isinstance(parse_vkey(signer.vkey), NoteVerifier)
    witness = parse_vkey(WITNESS.verifier.vkey)
    assert isinstance(witness, CosignatureVerifier)
    assert witness.key_id == WITNESS.key_id
    secret = signer.skey().split("+", 4)[4]
    assert secret not in f"{signer!r} {signer} {signer.vkey}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+c74f20a3",
        VKEY[:-1],
        VKEY + "=",
        VKEY.replace("c74f20a3", "c74f20a4"),
        VKEY.replace("c74f20a3", "C74F20A3"),
        VKEY.replace("PeterNeumann", "Peter Neumann"),
        VKEY.replace("PeterNeumann", "PeterNeuman"),
        "name+00000000+" + b64encode(b"\7" + b"k" * 32).decode(),
        "n" * 10_000,
        SKEY,
    ],
)
def test_malformed_public_keys_are_refused(text: str) -> None:
    with pytest.raises(LedgerError) as caught:
        parse_vkey(text)
    assert "AYEKFALVFGy" not in str(caught.value)


@pytest.mark.parametrize("text", ["", VKEY, SKEY[:-4], SKEY.replace("c74f20a3", "c74f20a4"), "PRIVATE+KEY+" + VKEY])
def test_malformed_private_keys_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(LedgerError) as caught:
        parse_skey(text)
    assert "AYEKFALVFGy" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\x01b", "n" * 256, "\ud800"])
def test_names_that_no_key_may_have(name: str) -> None:
    with pytest.raises(LedgerError):
        NoteSigner(name, b"\1" * 32)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_byte_of_a_note_can_be_changed(at: int, change: int) -> None:
    data = bytearray(SIGNED.encode())
    data[at % len(data)] ^= change
    with pytest.raises(TamperError):
        open_note(bytes(data), [parse_vkey(VKEY)])


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_opening_survives_any_input(data: bytes | str) -> None:
    for note in (data, SIGNED[:105] + str(data)):
        with pytest.raises(TamperError):
            open_note(note, [parse_vkey(VKEY)])


@pytest.mark.parametrize(
    "note",
    [
        SIGNED[:-1],
        SIGNED + "\n",
        SIGNED.replace("\n\n", "\n"),
        SIGNED.replace("— ", "- "),
        SIGNED.replace("\n", "\r\n"),
        SIGNED.replace("nAM=\n", "nAN=\n"),
        TEXT + "\n",
        SIGNED + "— a AAAA\n",
        TEXT * 3000 + SIGNED,
        SIGNED + SIGNED.rpartition("\n\n")[2] * 100,
    ],
)
def test_malformed_and_oversized_notes_are_refused(note: str) -> None:
    assert len(note) < 2 * MAX_NOTE_BYTES
    with pytest.raises(TamperError):
        open_note(note, [parse_vkey(VKEY)])


def test_signatures_of_unknown_keys_are_ignored_and_never_suffice() -> None:
    note = sign_note("text\n", LOG, STRANGER)
    opened = open_note(note, [LOG.verifier])
    assert [signature.name for signature in opened.unverified] == [STRANGER.name]
    assert opened.signed_by(LOG.verifier)
    assert not opened.signed_by(STRANGER.verifier)
    with pytest.raises(TamperError, match="no signature of a trusted key"):
        open_note(note, [parse_vkey(VKEY)])
    with pytest.raises(TamperError, match="no signature of a trusted key"):
        open_note(note, [])


def test_a_known_keys_wrong_signature_spoils_the_note_even_beside_a_right_one() -> None:
    note = sign_note("text\n", LOG)
    other = sign_note("other\n", STRANGER).rpartition("\n\n")[2]
    open_note(note + other, [LOG.verifier])
    with pytest.raises(TamperError, match="does not fit"):
        open_note(note + other, [LOG.verifier, STRANGER.verifier])
    wrong_twice = note + sign_note("other\n", LOG).rpartition("\n\n")[2]
    with pytest.raises(TamperError, match="does not fit"):
        open_note(wrong_twice, [LOG.verifier])


def test_one_key_signs_a_note_once() -> None:
    note = sign_note("text\n", LOG)
    with pytest.raises(LedgerError, match="signed this note already"):
        add_signatures(note, LOG)
    with pytest.raises(LedgerError):
        sign_note("text\n")
    for text in ("no newline", "tab\t\n", "half \ud800\n", "a" * MAX_NOTE_BYTES + "\n"):
        with pytest.raises(LedgerError):
            sign_note(text, LOG)


def test_two_trusted_keys_of_one_name_and_id_are_refused() -> None:
    class Impostor:
        name, key_id, vkey = LOG.name, LOG.key_id, STRANGER.vkey

        def verify(self, text: bytes, signature: bytes) -> bool:
            return True

    with pytest.raises(LedgerError, match="share the name and id"):
        open_note(sign_note("text\n", LOG), [LOG.verifier, Impostor()])
    open_note(sign_note("text\n", LOG), [LOG.verifier, parse_vkey(LOG.vkey)])


def test_a_witness_adds_its_cosignature_and_a_quorum_can_be_demanded() -> None:
    note = sign_checkpoint(HEAD, LOG)
    witnessed = add_signatures(note, WITNESS)
    assert witnessed.startswith(note)
    opened = parse_checkpoint(witnessed, [LOG.verifier], witnesses=[WITNESS.verifier], quorum=1)
    assert opened.checkpoint == HEAD
    cosignature = opened.note.signatures[1]
    assert CosignatureVerifier.timestamp(cosignature.data) == 1_679_315_147
    assert parse_checkpoint(witnessed, [LOG.verifier]).checkpoint == HEAD
    with pytest.raises(TamperError, match="0 cosignatures"):
        parse_checkpoint(note, [LOG.verifier], witnesses=[WITNESS.verifier], quorum=1)
    with pytest.raises(TamperError, match="1 cosignatures"):
        parse_checkpoint(witnessed, [LOG.verifier], witnesses=[WITNESS.verifier] * 2, quorum=2)


def test_a_witness_alone_cannot_speak_for_the_log() -> None:
    only_witness = add_signatures(sign_checkpoint(HEAD, LOG), WITNESS).replace(str_of(LOG), "")
    with pytest.raises(TamperError, match="not signed by its log"):
        parse_checkpoint(only_witness, [LOG.verifier], witnesses=[WITNESS.verifier])


def test_a_cosignature_covers_its_time() -> None:
    signature = WITNESS.sign(b"text\n")
    assert WITNESS.verifier.verify(b"text\n", signature)
    later = (1_679_315_148).to_bytes(8, "big")
    for wrong in (later + signature[8:], b"\xff" * 8 + signature[8:], signature[8:], signature + b"\0", b""):
        assert not WITNESS.verifier.verify(b"text\n", wrong)


def str_of(signer: NoteSigner) -> str:
    return sign_checkpoint(HEAD, signer).rpartition("\n\n")[2]


def test_checkpoints_read_back_with_their_extension_lines() -> None:
    head = Checkpoint(LOG.name, 7, b"\5" * 32, ("build 12", "another line"))
    note = sign_checkpoint(head, LOG)
    assert note.startswith(
        f"example.com/log\n7\n{b64encode(head.root).decode()}\nbuild 12\nanother line\n\n— example.com/log "
    )
    assert parse_checkpoint(note, [LOG.verifier]).checkpoint == head


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n1\n",
        "log\n01\n" + "A" * 43 + "=\n",
        "log\n-1\n" + "A" * 43 + "=\n",
        "log\n+1\n" + "A" * 43 + "=\n",
        "log\n٣\n" + "A" * 43 + "=\n",
        "log\n9223372036854775808\n" + "A" * 43 + "=\n",
        "log\n" + "9" * 5000 + "\n" + "A" * 43 + "=\n",
        "log\n1\n" + "A" * 40 + "\n",
        "log\n1\n" + "A" * 42 + "B=\n",
        "log\n0\n" + "A" * 43 + "=\n",
        "\n1\n" + "A" * 43 + "=\n",
        "log\n1\n" + "A" * 43 + "=\n\nextension\n",
        "log\n1\n" + "A" * 43 + "=",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(TamperError):
        parse_checkpoint_text(text)
    if text.endswith("\n"):
        with pytest.raises(TamperError):
            parse_checkpoint(sign_note(text, LOG), [LOG.verifier], origin="log")


@pytest.mark.parametrize(
    "head",
    [
        Checkpoint(LOG.name, -1, b"\5" * 32),
        Checkpoint(LOG.name, 1, b"\5" * 31),
        Checkpoint(LOG.name, 0, b"\5" * 32),
        Checkpoint(LOG.name, 1, EMPTY_ROOT),
        Checkpoint(LOG.name, 1, b"\5" * 32, ("",)),
        Checkpoint(LOG.name, 1, b"\5" * 32, ("a\nb",)),
        Checkpoint("another log", 1, b"\5" * 32),
    ],
)
def test_a_log_signs_no_checkpoint_that_is_none(head: Checkpoint) -> None:
    with pytest.raises(LedgerError):
        sign_checkpoint(head, LOG)


def test_the_origin_must_be_the_expected_log() -> None:
    foreign = sign_note(Checkpoint("example.com/other", 1, b"\5" * 32).text(), LOG)
    with pytest.raises(TamperError, match=r"is of the log 'example\.com/other'"):
        parse_checkpoint(foreign, [LOG.verifier])
    assert parse_checkpoint(foreign, [LOG.verifier], origin="example.com/other").checkpoint.size == 1
    with pytest.raises(LedgerError):
        parse_checkpoint(foreign, [])


def test_while_a_key_is_replaced_either_of_the_logs_keys_will_do() -> None:
    new = NoteSigner(LOG.name, b"\4" * 32)
    for note in (sign_checkpoint(HEAD, LOG), sign_checkpoint(HEAD, new), sign_checkpoint(HEAD, new, LOG)):
        assert parse_checkpoint(note, [LOG.verifier, new.verifier]).checkpoint == HEAD


def test_two_checkpoints_are_of_one_history_or_it_is_said_why_not() -> None:
    leaves = leaf_hashes(b"%d" % number for number in range(500))
    tiles = MemoryTiles()
    integrate(tiles, 0, leaves).write(tiles)

    def head(size: int, origin: str = LOG.name) -> Checkpoint:
        return Checkpoint(origin, size, TileTree(tiles, size).root())

    path = TileTree(tiles, 500).prove_consistency(300)
    check_consistency(head(300), head(500), path)
    check_consistency(head(0), head(500), [])
    check_consistency(head(500), head(500), [])
    with pytest.raises(TamperError, match="cut back"):
        check_consistency(head(500), head(300), path)
    with pytest.raises(TamperError, match="two logs"):
        check_consistency(head(300, "other"), head(500), path)
    with pytest.raises(TamperError, match="two different root hashes"):
        check_consistency(head(300), Checkpoint(LOG.name, 300, b"\5" * 32), [])
    with pytest.raises(TamperError, match="does not begin with"):
        check_consistency(Checkpoint(LOG.name, 300, b"\5" * 32), head(500), path)
