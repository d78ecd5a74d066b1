"""One push of an outside system into the shared context: on the value that stands, once for each delivery."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tightship.context import Declared, Head, Heads
from tightship.context.heads import Place
from tightship.core import kinds
from tightship.core.errors import GuardRefused
from tightship.core.ports import Json
from tightship.ledger import Draft, Expected, Guards, Ledger


def delivery_claim(ledger: Ledger, tenant: str, source: str, delivery: str) -> str:
    """The business key of a delivery: a keyed hash, so that the ledger names nobody's messages."""
    return ledger.mac(tenant, "delivery", f"{source}\x00{delivery}".encode())


def lost_to(head: Head, rule: str, by: str, base: int, value: str) -> dict[str, Any]:
    """The body of a conflict that changed nothing; what was to be written is kept (its address)."""
    body = {"scope": head.scope, "key": head.key, "rule": rule, "by": by, "base": base}
    return body | {"version": head.version, "other": head.writer, "value": value, "end": "refused"}


class Push:
    """A value on its way from a source. The tenant's key is in memory.

    Args:
        heads: the ledger's heads. declared, place: the key. value: what is pushed. source: who pushes.
        as_of: the source's time (s). tenant: whose. delivery: the source's name for it, or empty.
    """

    def __init__(
        self,
        heads: Heads,
        declared: Declared,
        place: Place,
        value: Json,
        source: str,
        as_of: float,
        tenant: str,
        delivery: str,
    ) -> None:
        ledger = heads.ledger
        self._heads, self._declared, self._place, self._source, self._as_of = heads, declared, place, source, as_of
        self._payload = heads.seal(tenant, value)
        self._claim = delivery_claim(ledger, tenant, source, delivery) if delivery else None
        # the claim is this attempt's own: the same delivery that comes again is another attempt, and finds it held
        self._key = f"push/{ledger.world.chance.token(8).hex()}" if delivery else ""

    async def attempt(self, head: Head, certain: bool) -> Head | None:
        """Write it on this head.

        Args:
            certain: the head was read just now; otherwise it is what stood after this process's last push.

        Returns: the head that stands now (after a delivery that was here before, the one that was given); None where
            the key has moved meanwhile, and the head is to be read.
        """
        old = self._as_of < head.as_of
        if old and not certain:
            return None
        draft = self._late(head) if old else self._write(head)
        guards = Guards(claim=self._claim, context=(Expected(*self._place, head.version),))
        try:
            entry = (await self._heads.ledger.append(draft, guards=guards))[0]
        except GuardRefused as refused:
            if refused.reason == "context" or not certain:
                return None
            return head
        if old:
            return head
        return replace(head, version=entry.n, at=entry.at, as_of=self._as_of, writer=self._source)

    def _write(self, head: Head) -> Draft:
        return self._heads.draft(
            self._declared,
            self._place[0],
            self._payload,
            self._source,
            key=self._key,
            as_of=self._as_of,
            since=0,
            base=head.version,
            claim=self._claim or "",
        )

    def _late(self, head: Head) -> Draft:
        """It comes behind a newer one: recorded, and nothing changes."""
        body = lost_to(head, "as_of", self._source, 0, self._payload.address)
        if self._claim:
            body["claim"] = self._claim
        return Draft("", kinds.CONFLICT, self._key, body, payloads=(self._payload,))
