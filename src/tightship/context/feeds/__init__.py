"""How outside systems push into the shared context: signed webhooks, changes of a Postgres table, brokers."""

from tightship.context.feeds.memory import MemoryBroker
from tightship.context.feeds.port import Broker, Delivery, open_broker
from tightship.context.feeds.webhook import sign, verified

__all__ = ["Broker", "Delivery", "MemoryBroker", "open_broker", "sign", "verified"]
