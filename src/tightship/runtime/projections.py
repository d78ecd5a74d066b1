"""The projections of every workspace's ledger, beside those that each ledger has."""

from __future__ import annotations

from tightship.controls.claims import ClaimsProjection
from tightship.controls.halts import HaltsProjection
from tightship.controls.leases import EnvelopesProjection, LoansProjection
from tightship.controls.spend import SpendProjection
from tightship.core.ports import Projection
from tightship.review import DeliveriesProjection, InboxProjection, ThresholdsProjection
from tightship.runtime.context import context_projections
from tightship.runtime.schedules import SchedulesProjection


def projections() -> list[Projection]:
    """One of each."""
    own = [InboxProjection(), SpendProjection(), HaltsProjection(), ClaimsProjection(), EnvelopesProjection()]
    own += [LoansProjection(), SchedulesProjection(), ThresholdsProjection(), DeliveriesProjection()]
    return [*own, *context_projections()]
