"""All models of a workspace behind one door-side handle: what a request may cost, and one attempt at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tightship.core.ports import FREE, Secrets, Usage
from tightship.core.world import World
from tightship.models.port import Model, ModelReply, ModelRequest, OnText
from tightship.models.prices import Prices
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
        self._loaded: dict[str, PydanticAiModel] = {}

    async def load(self) -> None:
        """Import the providers of all tiers and check their prices: done before work is claimed.

        Raises:
            LoadError: a provider is not installed, or a tier has no known price.
        """
        if self._instead is not None:
            return
        for name in self.tiers.names():
            await asyncio.to_thread(self.prices.check, self.tiers.get(name))  # reads the price list: 0.3 s
            await self._provider(name).load()

    def bound(self, request: ModelRequest) -> Usage:
        """The most that the request can cost: what a budget reserves before it is made."""
        if self._instead is not None:
            return getattr(self._instead, "bound", FREE)
        return self.prices.bound(self.tiers.get(request.tier), request, self._world.clock.now())

    def next_tier(self, name: str) -> Tier | None:
        """The tier to fall back or step up to, or None at the end."""
        return self.tiers.next_tier(name)

    async def request(self, request: ModelRequest, on_text: OnText | None = None) -> ModelReply:
        """One attempt at the request's tier (models.port.Model.request)."""
        model = self._instead or self._provider(request.tier)
        return await model.request(request, on_text)

    def _provider(self, name: str) -> PydanticAiModel:
        from tightship.models.provider import PydanticAiModel

        if name not in self._loaded:
            self._loaded[name] = PydanticAiModel(self.tiers.get(name), self._world, self._secrets, self.prices)
        return self._loaded[name]

    async def aclose(self) -> None:
        """Close all connections."""
        loaded, self._loaded = self._loaded, {}
        for model in loaded.values():
            await model.aclose()
