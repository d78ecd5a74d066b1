"""What others are told of a batch on a shared store."""

from __future__ import annotations

import json
from typing import Final

from tightship.core import kinds
from tightship.ledger.backend import Batch

NOTICE_BYTES: Final = 7900
"""What a NOTIFY may hold is less than 8,000 bytes."""


def due_elsewhere(batch: Batch) -> list[str]:
    """The runs that a batch may have made due: started without an owner, or signalled. Effects make none so."""
    deltas = batch.deltas.get("runs", {}).values()
    return [str(delta.key[0]) for delta in deltas if delta.set.get("state") == "queued" or "last_signal" in delta.set]


def notice_of(batch: Batch) -> str:
    """What is told of a batch: log and head of each log, and whether everybody has to hear of it."""
    mail = any(row[5] in kinds.TOLD for row in batch.rows)
    heads = {log: head for log, (_, head) in batch.heads.items()}
    text = json.dumps({"heads": heads, "mail": mail}, separators=(",", ":"))
    return text if len(text) < NOTICE_BYTES else json.dumps({"mail": mail})
