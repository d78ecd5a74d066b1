"""The projections of every workspace's ledger, beside those that each ledger has."""

from __future__ import annotations

from tightship.controls.claims import ClaimsProjection
from tightship.controls.counters import CountersProjection
from tightship.controls.halts import HaltsProjection
from tightship.controls.incidents import IncidentsProjection
from tightship.controls.leases import EnvelopesProjection, LoansProjection
from tightship.controls.spend import SpendProjection
from tightship.core.ports import Projection
from tightship.review import DeliveriesProjection, InboxProjection, ThresholdsProjection
from tightship.runtime.context import context_projections
from tightship.runtime.schedules import SchedulesProjection


def projections() -> list[Projection]:
    """One of each."""
    counted = [SpendProjection(), IncidentsProjection(), EnvelopesProjection(), LoansProjection(), CountersProjection()]
    return [InboxProjection(), HaltsProjection(), ClaimsProjection(), *counted, *_of_the_workspace()]


def _of_the_workspace() -> list[Projection]:
    return [SchedulesProjection(), ThresholdsProjection(), DeliveriesProjection(), *context_projections()]
