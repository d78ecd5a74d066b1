"""What a workspace's runs work with: tools of its connectors, its own Python, programs by workflow and by pin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from tightship.agents.context import ModelCaller
from tightship.agents.turn import AgentFunction
from tightship.controls.buckets import Rate
from tightship.controls.rates import Rates
from tightship.core.errors import LoadError, UnknownName
from tightship.core.ports import Json, Secrets, Tool
from tightship.core.world import World
from tightship.ledger import Ledger
from tightship.runtime.code import Code
from tightship.runtime.confidence import calibrated
from tightship.runtime.program import Program
from tightship.workflow.config import TierSpec
from tightship.workflow.definition import Definition, from_definition, reach, to_definition, version_hash
from tightship.workflow.loader import WorkspaceFiles
from tightship.workflow.models import AgentSpec

if TYPE_CHECKING:
    from tightship.connectors.openapi import OpenApiConnector
    from tightship.models.port import Model
    from tightship.models.service import Models


class Tools(Mapping[str, Tool]):
    """All tools by name; an operation of a contract is compiled when it is first asked for."""

    def __init__(self, given: Mapping[str, Tool]) -> None:
        self._given = dict(given)
        self._connectors: list[OpenApiConnector] = []
        self._names: dict[str, OpenApiConnector] = {}
        self._made: dict[str, Tool] = {}
        self.wrap: Callable[[Tool], Tool] | None = None
        self._watch: Callable[[str, Tool], None] | None = None

    def add(self, connector: OpenApiConnector) -> None:
        """Take in a connector's operations."""
        self._connectors.append(connector)
        for name in connector.tools():
            self._names.setdefault(name, connector)

    def give(self, tools: Mapping[str, Tool]) -> None:
        """Take in further tools."""
        self._given.update(tools)

    def watch(self, told: Callable[[str, Tool], None]) -> None:
        """Tell of every tool when it is made, of those that are made already at once."""
        self._watch = told
        for name, tool in self._made.items():
            told(name, tool)

    def __getitem__(self, name: str) -> Tool:
        found = self._made.get(name)
        if found is None:
            found = self._given.get(name) or self._names[name].tool(name)
            if self.wrap is not None:
                found = self.wrap(found)
            self._made[name] = found
            if self._watch is not None:
                self._watch(name, found)
        return found

    def __iter__(self) -> Iterator[str]:
        yield from self._given
        yield from (name for name in self._names if name not in self._given)

    def __len__(self) -> int:
        return len(self._given) + sum(1 for name in self._names if name not in self._given)

    async def warm(self) -> None:
        """Open a connection to each connector's system, where it answers."""
        await asyncio.gather(*(connector.warm() for connector in self._connectors))

    async def close(self) -> None:
        """Close the connectors' connections."""
        for connector in self._connectors:
            await connector.aclose()


class Outfit:
    """Connectors, Python tools, agents' code."""

    def __init__(
        self,
        files: WorkspaceFiles,
        world: World,
        secrets: Secrets | None,
        tools: Mapping[str, Tool],
        rehearse: bool,
        model: Model | None = None,
    ) -> None:
        self._instead = model
        self.files = files
        self.world = world
        self.code = Code(files.root)
        self.given = set(tools)
        self.tools = Tools(tools)
        self.rehearse = rehearse
        self._secrets = secrets
        self._maker: Maker | None = None
        self._models: dict[bytes, Models] = {}
        self._connected = False
        self._loaded: set[str] = set()

    async def connect(self) -> Tools:
        """Read the contracts of the declared connectors and the workspace's own tools.

        Raises:
            LoadError: a contract cannot be read. Unavailable: it is to be fetched and its server does not answer.
        """
        if self._connected:
            return self.tools
        from tightship.connectors.openapi import open_connector
        from tightship.connectors.python import load_tools
        from tightship.connectors.settings import connector_settings

        folder = self.files.root / "tools"
        if folder.is_dir():
            self.tools.give(await asyncio.to_thread(load_tools, folder))
        secrets = self.secrets()
        for name, raw in self.files.config.connectors.items():
            settings = connector_settings(name, raw.to_data(), file=str(self.files.root / "tightship.yaml"))
            try:
                self.tools.add(await open_connector(name, settings, self.files.root, self.world, secrets))
            except LoadError as error:
                raise self._explained(name, error) from None
        if self.rehearse:
            from tightship.connectors.rehearsal import RehearsalTool

            self.tools.wrap = lambda tool: RehearsalTool(tool.spec, loose=True)
        self._connected = True
        return self.tools

    def _explained(self, connector: str, error: LoadError) -> LoadError:
        """Why a rehearsal, which asks no system for anything, needs a contract that cannot be fetched."""
        if not self.rehearse or "://" not in self.files.config.connectors[connector].openapi:
            return error
        return LoadError(
            f"a rehearsal needs the contract of {connector}, though nothing else of it: {error.message}",
            file=error.file,
            fix="keep a copy of the contract in the workspace (`openapi: FILE`), or start the system",
        )

    def limit(self, rates: Rates) -> None:
        """Declare the limits of tiers, and of tools: each when it is made (a contract may have thousands)."""

        def declare(name: str, tool: Tool) -> None:
            if tool.spec.requests_per_second:
                rates.limit(name, Rate(requests_per_second=tool.spec.requests_per_second))

        for name, tier in self.files.config.tiers.items():
            minute = tier.requests_per_minute
            if minute or tier.tokens_per_minute:
                rates.limit(f"model.{name}", Rate(minute and minute / 60.0, tier.tokens_per_minute))
        self.tools.watch(declare)

    def models(self, tiers: Mapping[str, TierSpec]) -> Models | None:
        """The models of these tiers (a run is pinned to its own), or None when there are none."""
        if not tiers:
            return None
        raw = {name: tier.settings() for name, tier in tiers.items()}
        key = orjson.dumps(raw, option=orjson.OPT_SORT_KEYS)
        found = self._models.get(key)
        if found is None:
            from tightship.models.service import Models
            from tightship.models.tiers import Tiers

            declared = Tiers(raw, file=str(self.files.root / "tightship.yaml"))
            first = next(iter(self._models.values()), None)
            if first is None:
                found = Models(declared, self.world, self.secrets(), instead=self._instead)
            else:
                found = first.over(declared)
            self._models[key] = found
        return found

    async def load_models(self) -> None:
        """Import what the agents' tiers need and find their prices, so that no turn waits for it.

        Raises:
            LoadError: a provider is not installed, or nobody knows what a tier costs.
        """
        if self.rehearse:
            return
        config = self.files.config
        named = {agent.model for agent in self.files.agents.values() if agent.model is not None}
        models = self.models(config.tiers)
        if models is not None:
            await models.load(sorted({tier for name in named for tier in config.tier_chain(name)}))

    def load_code(self, workflows: Iterable[str]) -> None:
        """Import the modules of all agents that these workflows can reach, before any run of them begins.

        Raises:
            LoadError: a module does not import, or has no such function. UnknownName: no such workflow.
        """
        if self.rehearse:
            return
        for workflow in workflows:
            if workflow not in self._loaded:
                for name in reach(workflow, self.files)[1]:
                    agent = self.files.agent(name)
                    if agent.python is not None:
                        self.code.function(agent)
                    if agent.confidence is not None:
                        calibrated(agent, self.files.root)  # fitted before runs begin, not while they wait
                self._loaded.add(workflow)

    async def warm(self) -> None:
        """Make the programs of all workflows, their agents and tools ready, and open connections to their systems.

        Raises:
            LoadError: what an agent needs cannot be loaded.
        """
        assert self._maker is not None, "only an engine runs anything"
        for workflow in self.files.workflows:
            self._maker.current(workflow).warm()
        if not self.rehearse:
            await self.tools.warm()

    def secrets(self) -> Secrets:
        """Where secrets come from."""
        if self._secrets is None:
            from tightship.connectors.secrets import default_secrets

            self._secrets = default_secrets(self.files.root)
        return self._secrets

    def maker(self, ledger: Ledger, threshold: float) -> Maker:
        """Makes programs against this ledger."""
        self._maker = Maker(self, ledger, threshold)
        return self._maker

    def forget(self) -> None:
        """The files have changed: programs are made anew."""
        self._loaded.clear()
        if self._maker is not None:
            self._maker.forget()

    async def close(self) -> None:
        """Close what is open."""
        await self.tools.close()
        for models in self._models.values():
            await models.aclose()
        self._models.clear()


class Maker:
    """Programs: of a workflow as its files stand, and of a definition that a run is pinned to."""

    def __init__(self, outfit: Outfit, ledger: Ledger, threshold: float) -> None:
        self._outfit = outfit
        self._ledger = ledger
        self._threshold = threshold
        self._current: dict[str, Program] = {}
        self._pinned: dict[str, Program] = {}

    def forget(self) -> None:
        """Make programs of workflows anew."""
        self._current.clear()

    def current(self, workflow: str) -> Program:
        """The workflow as it stands.

        Raises:
            UnknownName: there is none.
        """
        found = self._current.get(workflow)
        if found is None:
            outfit = self._outfit
            outfit.files.workflow(workflow)
            definition = to_definition(workflow, outfit.files, self._specs(workflow))
            found = self._current[workflow] = self._make(definition)
        return found

    def _specs(self, workflow: str) -> dict[str, Any]:
        """Contracts of the tools that the workflow names."""
        files, tools = self._outfit.files, self._outfit.tools
        workflows, agents = reach(workflow, files)
        names = {name for agent in agents for name in files.agent(agent).tools}
        names |= {name for one in workflows for name in files.workflow(one).tools()}
        found: dict[str, Any] = {}
        for name in sorted(names):
            tool = tools.get(name)
            if tool is None:
                raise UnknownName(
                    f"{workflow} needs the tool {name!r}, which no connector and no file of tools/ gives",
                    fix="correct the name, or add its connector to tightship.yaml",
                )
            found[name] = tool.spec
            if tool.spec.undo is not None and (undo := tools.get(tool.spec.undo.tool)) is not None:
                found[undo.spec.name] = undo.spec
        return found

    def pinned(self, address: str, definition: Json) -> Program | None:
        """The program of a definition in the ledger; None when it is not known and was not given."""
        found = self._pinned.get(address)
        if found is None and definition is not None:
            found = self._make(definition)
        return found

    def _make(self, definition: Mapping[str, Json]) -> Program:
        rebuilt: Definition = from_definition(definition)
        outfit = self._outfit
        program = Program(
            rebuilt,
            outfit.code,
            outfit.tools,
            limits=outfit.files.config.limits,
            ambient=self._ambient,
            claim=lambda tenant, key: self._ledger.mac(tenant, "claim", key),
            agent_seconds=outfit.files.config.settings.agent_seconds,
            make_model=lambda spec: self._model(spec, rebuilt.tiers),
            rehearse=self._rehearsal() if outfit.rehearse else None,
            roles=tuple(outfit.files.config.roles),
            definition_json=dict(definition),
            version=version_hash(definition),
            live=not outfit.rehearse,
        )
        self._pinned[program.address] = program
        return program

    def _ambient(self, program: Program, name: str) -> Json:
        if name == "now()":
            return self._outfit.world.clock.now()
        if name == "threshold":
            declared = program.spec.threshold
            return self._threshold if declared is None else declared
        raise UnknownName(f"the shared context has no value {name!r}")

    def _model(self, spec: AgentSpec, tiers: Mapping[str, TierSpec]) -> ModelCaller | None:
        models = self._outfit.models(tiers)
        if models is None:
            return None
        from tightship.agents.model import TierCaller

        return TierCaller(models, spec.model)

    @staticmethod
    def _rehearsal() -> Callable[[AgentSpec], AgentFunction]:
        from tightship.agents.rehearsal import rehearsed_agent

        return rehearsed_agent
