"""The sample company: a practice world for demos, tests, drills and simulations.

A small shop with customers, orders, refunds, a helpdesk, paid lookups, stock and purchasing, served over HTTP on
the loopback interface with an OpenAPI document at `/openapi.json`, SQLite behind it, and switches that break it on
purpose. Every person, address and order in it is made up.

Parts: `Company` is the business (operations by name, each performed whole or not at all), `Faults` the switches,
`build_app` the HTTP layer over both, `serve` and `running` put it on a port, `InProcessTransport` calls it without
one. Given the same clock, chance and calls, all of it does the same.

Writes differ on purpose in how they can be repeated: some honour `Idempotency-Key`, some are conditional on an
ETag, and `helpdesk.reply` and `helpdesk.note` are neither: whether they happened must be looked up by `client_ref`.
The document says which in `x-idempotent`, `x-lookup`, `x-undo` and `x-price`. The service does not enforce refund
limits, order policies or who owns an order: that is the work of those who use it.

Control routes (same token, never faulted): `GET|PUT|DELETE /_faults`, `GET /_ledger` (every write in order) and
`GET /_state` (the business state in canonical form, with its digest).

Records worth knowing (all in seed.json; times are relative to the moment of seeding):

* customers `C-1001` to `C-1040`; in the older format `C-1007` (a reader can convert it), `C-1031` (the service
  converts it on `?schema=v2`) and `C-1019` (nobody can); not verified `C-1013`, `C-1028`, `C-1040`
* orders `O-2001` to `O-2090`; two rules in conflict on `O-2044` and `O-2048`; final sale `O-2043`, `O-2045`;
  damaged `O-2046`, `O-2047`; lost `O-2033`; returned and not yet refunded `O-2040`; not paid `O-2010`, `O-2054`
* above a refund limit of 100.00: `O-2012`, `O-2021`, `O-2022`, `O-2034`, `O-2038`, `O-2047`, `O-2052`, `O-2053`,
  `O-2055`; exactly 100.00: `O-2058`; older than 30 days: `O-2020`, `O-2036` and most from `O-2065`
* refunded in full `O-2025`, in part `O-2026`, pending `O-2027`, cancelled `O-2028`
* tickets `T-3001` to `T-3008`; stock `SKU-501` to `SKU-518`; purchase orders such as `PO-502-1`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tightship.company._call import Answer, Call, CompanyError, Refusal

if TYPE_CHECKING:
    from tightship.company._app import MAX_BODY, build_app
    from tightship.company._company import Company
    from tightship.company._faults import FAULT_KINDS, ConnectionDropped, Fault, FaultKind, Faults
    from tightship.company._server import CompanySettings, Running, running, serve
    from tightship.company._transport import InProcessTransport

__all__ = [
    "FAULT_KINDS",
    "MAX_BODY",
    "Answer",
    "Call",
    "Company",
    "CompanyError",
    "CompanySettings",
    "ConnectionDropped",
    "Fault",
    "FaultKind",
    "Faults",
    "InProcessTransport",
    "Refusal",
    "Running",
    "build_app",
    "running",
    "serve",
]

_HOMES = {
    "_app": ("MAX_BODY", "build_app"),
    "_company": ("Company",),
    "_faults": ("FAULT_KINDS", "ConnectionDropped", "Fault", "FaultKind", "Faults"),
    "_server": ("CompanySettings", "Running", "running", "serve"),
    "_transport": ("InProcessTransport",),
}


def __getattr__(name: str) -> Any:
    # Starlette, uvicorn and httpx2 are loaded when a part that needs them is first used.
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
