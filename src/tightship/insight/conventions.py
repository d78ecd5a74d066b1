"""Names of spans and attributes, in one place: the OpenTelemetry GenAI conventions are not stable yet.

OpenTelemetry semantic conventions 1.41, GenAI client and agent spans (status: development). What they have no name
for (cost, keys, decisions of the door) stands in our own namespace.
"""

from __future__ import annotations

from typing import Final

SCHEMA: Final = "https://opentelemetry.io/schemas/1.41.0"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
AGENT: Final = "gen_ai.agent.name"
WORKFLOW: Final = "gen_ai.workflow.name"
CONVERSATION: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
TOOL: Final = "gen_ai.tool.name"
TOOL_CALL: Final = "gen_ai.tool.call.id"
ERROR: Final = "error.type"

INVOKE_WORKFLOW: Final = "invoke_workflow"
INVOKE_AGENT: Final = "invoke_agent"
EXECUTE_TOOL: Final = "execute_tool"
CHAT: Final = "chat"

RUN: Final = "tightship.run"
KEY: Final = "tightship.key"
TENANT: Final = "tightship.tenant"
VERSION: Final = "tightship.version"
OUTCOME: Final = "tightship.outcome"
REASON: Final = "tightship.reason"
COST_USD: Final = "tightship.cost_usd"
EFFECT: Final = "tightship.effect"
ATTEMPTS: Final = "tightship.attempts"
CACHED: Final = "tightship.cached"
REFUSED: Final = "tightship.refused"
POLICY: Final = "tightship.policy"
UNDOES: Final = "tightship.undoes"
ITEM: Final = "tightship.inbox.item"
ROLE: Final = "tightship.inbox.role"
DECISION: Final = "tightship.inbox.decision"
DECIDED_BY: Final = "tightship.inbox.by"
WAIT: Final = "wait_for_person"
POSITION: Final = "tightship.position"
