"""A template's workspace beside the sample company in this process, in virtual time."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support_desk import CONTRACT, Token
from tightship.company import Company, Faults, InProcessTransport, build_app
from tightship.connectors.auth import auth_of
from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.settings import AuthSettings
from tightship.ledger import Ledger
from tightship.patterns import load_all
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.loader import load_workspace
from tightship.workflow.readiness import Finding, check_workspace


def findings(template: Path) -> list[Finding]:
    """What `check` says of a template beside the sample company's contract."""
    connector = OpenApiConnector("company", CONTRACT.read_bytes(), "http://127.0.0.1:1")
    return check_workspace(load_workspace(template), {name: connector.spec(name) for name in connector.tools()})


class TemplateDesk:
    """One process on a copy of a template.

    Args:
        folder: where the copy is made. behind: the section of its tightship.yaml that follows the connectors, for which
            the company's own tools stand in. systems: how their names begin. more: further tools.
    """

    def __init__(
        self,
        sim: Simulation,
        template: Path,
        folder: Path,
        behind: str = "budgets:",
        systems: tuple[str, ...] = ("",),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        load_all()
        self.company = Company(clock=sim.clock.now, rng=random.Random(1))
        world = sim.world(InProcessTransport(build_app(self.company, Faults(random.Random(1)), token="practice")))
        auth = auth_of(AuthSettings.model_validate({"bearer": {"secret": "COMPANY_TOKEN"}}), Token(), world)
        self.connector = OpenApiConnector("company", CONTRACT.read_bytes(), "http://company.example", auth, world)
        shutil.copytree(template, folder, ignore=shutil.ignore_patterns("__pycache__"))
        config = folder / "tightship.yaml"
        head, _, rest = config.read_text().partition("connectors:")
        config.write_text(head + behind + rest.partition(behind)[2])
        tools: dict[str, Any] = {
            name: self.connector.tool(name) for name in self.connector.tools() if name.startswith(systems)
        }
        self.ledger = Ledger.in_memory(world, projections())
        self.ws = Workspace.open(folder, world=world, ledger=self.ledger, tools={**tools, **(more or {})})
        self.process = sim.loop.process("desk")

    async def close(self) -> None:
        """Close the company."""
        await self.connector.aclose()
        self.company.close()
