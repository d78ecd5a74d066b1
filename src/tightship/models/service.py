"""All models of a workspace behind one door-side handle: what a request may cost, and one attempt at it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tightship.core.ports import FREE, Secrets, Usage
from tightship.core.world import World
from tightship.models.port import Model, ModelReply, ModelRequest, OnText
from tightship.models.prices import Counted, Prices
from tightship.models.tiers import Tier, Tiers

if TYPE_CHECKING:
    from tightship.models.provider import PydanticAiModel


class Models:
    """The tiers of a workspace.

    Args:
        tiers: which there are.
        world: clock and transport.
        secrets: where the providers' keys are.
        prices: what they cost.
        instead: answers for every tier (a rehearsal, a scripted model), for at most its `bound` (a Usage) or at no
            cost; no provider is imported then.
    """

    def __init__(
        self,
        tiers: Tiers,
        world: World,
        secrets: Secrets,
        *,
        prices: Prices | None = None,
        instead: Model | None = None,
    ) -> None:
        self.tiers = tiers
        self.prices = prices or Prices()
        self._world = world
        self._secrets = secrets
        self._instead = instead
        self._loaded: dict[Tier, PydanticAiModel] = {}
        self._ready: set[Tier] = set()

    def over(self, tiers: Tiers) -> Models:
        """Other tiers (those that a run is pinned to) on the same connections and prices; closed with these."""
        made = Models(tiers, self._world, self._secrets, prices=self.prices, instead=self._instead)
        made._loaded, made._ready = self._loaded, self._ready
        return made

    async def load(self, names: Iterable[str] | None = None) -> None:
        """Import the providers of tiers (of all, by default) and check their prices: done before work is claimed.

        Raises:
            LoadError: a provider is not installed, or a tier has no known price.
        """
        for name in self.tiers.names() if names is None else names:
            await self.ready(name)

    async def ready(self, name: str) -> None:
        """Make one tier ready, off the event loop; at once when it is.

        Raises:
            UnknownName: there is no such tier. LoadError: as `load`.
        """
        tier = self.tiers.get(name)
        if self._instead is not None or tier in self._ready:
            return
        await asyncio.to_thread(self.prices.check, tier)  # reads the price list: 0.3 s
        await self._provider(name).load()
        self._ready.add(tier)

    def bound(self, request: ModelRequest, counted: Counted | None = None) -> Usage:
        """The most that the request can cost: what a budget reserves before it is made.

        Args:
            request: what is asked.
            counted: the longest part of its conversation that the tier has counted itself.
        """
        if self._instead is not None:
            return getattr(self._instead, "bound", FREE)
        return self.prices.bound(self.tiers.get(request.tier), request, self._world.clock.now(), counted)

    def left(self, not_after: float) -> float:
        """Seconds until a store time (s), and never quite none."""
        return max(0.001, not_after - self._world.clock.now())

    def next_tier(self, name: str) -> Tier | None:
        """The tier to fall back or step up to, or None at the end."""
        return self.tiers.next_tier(name)

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """One attempt at the request's tier (models.port.Model.request)."""
        model = self._instead or self._provider(request.tier)
        return await model.request(request, on_text)

    def _provider(self, name: str) -> PydanticAiModel:
        from tightship.models.provider import PydanticAiModel

        tier = self.tiers.get(name)
        if tier not in self._loaded:
            self._loaded[tier] = PydanticAiModel(tier, self._world, self._secrets, self.prices)
        return self._loaded[tier]

    async def aclose(self) -> None:
        """Close all connections."""
        loaded = list(self._loaded.values())
        self._loaded.clear()
        self._ready.clear()
        for model in loaded:
            await model.aclose()
