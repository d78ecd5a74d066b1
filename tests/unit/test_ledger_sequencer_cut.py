"""A sequencer that is cut off in the middle of a step goes on from what is on the disk."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from tightship.ledger import Draft, Ledger
from tightship.ledger.sequencer import Sequencer


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_a_step_that_was_cut_off_on_its_way_to_the_disk_is_waited_for(tmp_path: Path, turns: int) -> None:
    ledger = await Ledger.open(tmp_path)
    try:
        await ledger.append(*(Draft("", "halt.set", "", {"scope": f"run:{n}"}) for n in range(50)))
        sequencer = Sequencer(ledger)
        cut = asyncio.ensure_future(sequencer.run_once())
        for _ in range(turns):
            await asyncio.sleep(0.0001)
        cut.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cut
        assert await sequencer.run_once() == {"default": 50}
        await sequencer.close()
    finally:
        await ledger.close()
