"""Looks at a board and moves on it, on their way through the door: counted, halted, recorded, replayed.

All moves of a turn stand or fall together: they are judged on the heads as they were read, and appended with the
settle only if each of these heads still stands, under the log's lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from tightship.context.board import Move, Spot, play, spot_of, stored
from tightship.context.heads import Place
from tightship.core import kinds
from tightship.core.errors import BoundaryError, ConflictingWrite, GuardRefused, LimitReached
from tightship.core.ports import FREE, Json
from tightship.core.signals import Signal
from tightship.effects._shared_reads import ContextTool, SharedReads
from tightship.effects.journal import Body
from tightship.ledger import Draft, Expected, Guards, SealedPayload

LOOK, MOVE = ContextTool("look"), ContextTool("move")
ROUNDS: Final = 50
"""How often moves are judged anew while others move the same sub-problems."""


class BoardPassage(SharedReads):
    """One operation on a board on its way through the door.

    Its arguments: `scope`; `items`, the key of each sub-problem's head by its name; of a look `claims`, the hash of the
    business key by name; of a move `by`, `moves`, and `lease` (s).
    """

    __slots__ = ()

    async def go(self) -> Json:
        """Perform it, or replay it.

        Raises:
            ConflictingWrite: others move so often that these moves find no turn. LimitReached, Signal: refused.
        """
        session, call = self.session, self.call
        recorded = session.journal.effects.get(call.key)
        if recorded is not None:
            return await self.replay(recorded)
        try:
            for limits in session.counters(call.agent):
                limits.count_call(call.key)
            session.shared.halts.check(session.scopes(call.agent))
            session.watch.check()
        except (BoundaryError, LimitReached, Signal) as error:
            return await self.refuse(error)
        return await (self._look() if call.tool is LOOK else self._move())

    async def _spots(self, items: Mapping[str, str]) -> dict[str, Spot]:
        scope, heads = self.call.args["scope"], self.shared.heads
        places: dict[str, Place] = {item: (scope, key) for item, key in items.items()}
        found, now = await heads.read(list(places.values())), self.now
        values = await heads.values([found[place] for place in places.values()], now)
        return {
            item: spot_of(item, found[place], value.value, now)
            for (item, place), value in zip(places.items(), values, strict=True)
        }

    # --- looking ---------------------------------------------------------------------------------

    async def _look(self) -> Json:
        """How the sub-problems stand that are not open, and what other runs have claimed by their business keys."""
        journal, call = self.session.journal, self.call
        spots = await self._spots(call.args["items"])
        outcome: Json = {
            "now": round(self.now, 3),
            "spots": {item: spot.to_json() for item, spot in spots.items() if spot.state != "open"},
            "claimed": await self._claimed(),
        }
        payload, data = journal.seal(outcome)
        body = self._settle_body(FREE, 0) | {"out": payload.address}
        await journal.go_ahead(kinds.SETTLED, call.key, body, (self.payload, payload))
        return orjson.loads(data)

    async def _claimed(self) -> dict[str, Json]:
        """The sub-problems whose business key another run holds or has done."""
        claims: Mapping[str, str] = self.call.args.get("claims", {})
        if not claims:
            return {}
        rows = await self.shared.heads.ledger.select("claims", [("key", "in", sorted(set(claims.values())))])
        own = self.session.facts.id
        states = {row["key"]: row["state"] for row in rows if row["run"] != own and row["state"] != "released"}
        return {item: states[key] for item, key in claims.items() if key in states}

    # --- moving ----------------------------------------------------------------------------------

    async def _move(self) -> Json:
        args, facts = self.call.args, self.session.facts
        moves = [Move.from_json(one) for one in args["moves"]]
        touched = {move.item: args["items"][move.item] for move in moves}
        for _ in range(ROUNDS):
            spots = await self._spots(touched)
            verdicts, changed = play(moves, spots, facts.id, args["by"])
            self._read = [
                {"scope": args["scope"], "key": touched[one.item], "refused": True} for one in verdicts if one.why
            ]
            outcome: Json = {"moves": [one.to_json() for one in verdicts]}
            try:
                return await self._settle_moves(outcome, changed)
            except GuardRefused as moved:
                if moved.reason != "context":
                    raise
        raise ConflictingWrite(f"the board is moved so often that {args['by']} finds no turn")

    async def _settle_moves(self, outcome: Json, changed: Mapping[str, tuple[Spot, Spot]]) -> Json:
        journal, call = self.session.journal, self.call
        keys, scope, run = call.args["items"], call.args["scope"], journal.run
        drafts, expected = list[Draft](), list[Expected]()
        for number, (item, (before, after)) in enumerate(changed.items(), 1):
            over = before.lapsed and not before.was(run, call.args["by"])
            expected.append(Expected(scope, keys[item], before.version, over=over))
            payload = self._seal(stored(after))
            written: dict[str, Any] = {
                "scope": scope,
                "key": keys[item],
                "value": payload.address,
                "writer": after.by,
                "base": before.version,
            }
            if after.state == "held":
                written["ttl"] = call.args["lease"]
            drafts.append(Draft(run, kinds.CONTEXT, f"{call.key}/{number}", written, journal.epoch, (payload,)))
        out, _ = journal.seal(outcome)
        body: Body = self._settle_body(FREE, 0) | {"out": out.address}
        settled = Draft(run, kinds.SETTLED, call.key, body, journal.epoch, (self.payload, out))
        guards = Guards(context=tuple(expected)) if expected else None
        await journal.record_all(*drafts, settled, guards=guards)
        return outcome

    def _seal(self, value: Json) -> SealedPayload:
        return self.shared.heads.seal(self.session.facts.tenant, value, self.session.journal.scope)
