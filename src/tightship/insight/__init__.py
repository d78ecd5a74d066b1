"""Readings of the ledger: what runs did, what they cost, why they decided as they did. Nothing here writes."""

from __future__ import annotations

from tightship.insight.attribution import Attribution, Suspect, attribute, attribute_run
from tightship.insight.boundaries import Refusals, refusals
from tightship.insight.coordination import (
    Coordination,
    Effort,
    Lately,
    Pair,
    coordination_by_run,
    coordination_left_out,
    coordination_of,
    coordination_of_many,
    coordination_report,
)
from tightship.insight.costs import (
    GROUPS,
    Cost,
    CostLine,
    CostReport,
    RepeatedCall,
    RunCosts,
    TurnCost,
    budget_forecast,
    cost_report,
    costs_of_run,
    report,
    run_costs,
)
from tightship.insight.decisions import Datum, Decision, Rule, RunDecisions, Trigger, explain, needed, why
from tightship.insight.demand import Demand, WorkflowDemand, demand, load
from tightship.insight.exposition import exposition
from tightship.insight.spans import span_id, spans, trace_id
from tightship.insight.timeline import Event, StepNode, Timeline, entry_line, row_line, show, timeline

__all__ = [
    "GROUPS",
    "Attribution",
    "Coordination",
    "Cost",
    "CostLine",
    "CostReport",
    "Datum",
    "Decision",
    "Demand",
    "Effort",
    "Event",
    "Lately",
    "Pair",
    "Refusals",
    "RepeatedCall",
    "Rule",
    "RunCosts",
    "RunDecisions",
    "StepNode",
    "Suspect",
    "Timeline",
    "Trigger",
    "TurnCost",
    "WorkflowDemand",
    "attribute",
    "attribute_run",
    "budget_forecast",
    "coordination_by_run",
    "coordination_left_out",
    "coordination_of",
    "coordination_of_many",
    "coordination_report",
    "cost_report",
    "costs_of_run",
    "demand",
    "entry_line",
    "explain",
    "exposition",
    "load",
    "needed",
    "refusals",
    "report",
    "row_line",
    "run_costs",
    "show",
    "span_id",
    "spans",
    "timeline",
    "trace_id",
    "why",
]
