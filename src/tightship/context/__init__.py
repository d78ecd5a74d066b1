"""One shared context for all agents: values with versions, ages and writers, kept in the ledger.

Everybody may read unless `readers:` narrows it, only declared writers may write. The door performs the operations
(`effects/shared.py`); here is what they mean: keys, values, freshness, conflicts, projections, and following changes.
"""

from tightship.context.conflicts import Collision, Resolution, resolve
from tightship.context.declared import Declarations, Declared
from tightship.context.heads import Head, Heads
from tightship.context.projection import AgesProjection, ContextProjection, bucket_of, quantile
from tightship.context.values import Value
from tightship.context.watch import Follower

__all__ = [
    "AgesProjection",
    "Collision",
    "ContextProjection",
    "Declarations",
    "Declared",
    "Follower",
    "Head",
    "Heads",
    "Resolution",
    "Value",
    "bucket_of",
    "quantile",
    "resolve",
]
