"""What is done with a unit before its transaction: large payloads go to files, and its keys are those that stand."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from tightship.core.errors import LedgerError, StoreError, StoreFull, StoreReadOnly, TamperError
from tightship.ledger.entries import SealedPayload, Unit, payload_crc
from tightship.ledger.vault import names_of

if TYPE_CHECKING:
    from tightship.ledger.ledger import Ledger


def prepare(ledger: Ledger, unit: Unit) -> bool:
    """Large payloads are on the disk before the entry that names them; false when the unit cannot be stored."""
    conflicts, limit = ledger.vault.keyring.conflicts, ledger.backend.file_from
    try:
        for draft in unit.drafts:
            for payload in draft.payloads:
                if conflicts and not conflicts.isdisjoint(names_of(payload.scope)):
                    _check_opens(ledger, payload)
                if limit is not None and len(payload.data or b"") > limit:
                    draft.payloads = tuple(_to_file(ledger, one, limit) for one in draft.payloads)
                    break
    except (StoreError, LedgerError) as error:
        unit.refuse(error)
        return False
    return True


def _check_opens(ledger: Ledger, payload: SealedPayload) -> None:
    """Another process made one of these keys at the same moment, and its key stands."""
    try:
        ledger.vault.open(payload.address, payload.scope, payload.data or b"")
    except TamperError:
        raise StoreError(
            "another process made a key of this scope at the same moment",
            fix="try again: its key is used now",
        ) from None


def _to_file(ledger: Ledger, payload: SealedPayload, limit: int) -> SealedPayload:
    address, scope, data, _ = payload
    if data is None or len(data) <= limit:
        return payload
    try:
        ledger.disk.write(address, data)
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreReadOnly
        where = None if ledger.path is None else str(ledger.path / "payloads")
        raise kind(f"a large payload could not be written: {error.strerror}", where=where) from error
    return SealedPayload(address, scope, None, payload_crc(bytes.fromhex(address), scope, data))
