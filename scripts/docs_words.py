"""What each field of a workspace's files means, by `Model.field`. A field without its words here fails a test."""

from __future__ import annotations

from collections.abc import Mapping

from docs_words_connectors import CONNECTORS

WORKFLOW: Mapping[str, str] = {
    "WorkflowSpec.workflow": "Its name: lower-case letters and digits, `-` or `_` between.",
    "WorkflowSpec.owner": "Who answers for it.",
    "WorkflowSpec.purpose": "What it is for, in a sentence. Every turn of every agent is given it as the objective.",
    "WorkflowSpec.input": "The fields that a run is started with. Others are refused.",
    "WorkflowSpec.output": "What a run gives, as expressions. Without it: the output of the last step.",
    "WorkflowSpec.budget": "What one run may cost.",
    "WorkflowSpec.limits": "Limits that differ from those of `tightship.yaml`.",
    "WorkflowSpec.on": "What happens on an exception where neither the step nor the agent says it.",
    "WorkflowSpec.constraints": "What holds for all that is done. Every turn of every agent is given it.",
    "WorkflowSpec.breaker": (
        "When its calls are left alone for a while ([breakers](settings.md#breakers)). In force as it stands today."
    ),
    "AgentSpec.breaker": (
        "When its calls are left alone for a while ([breakers](settings.md#breakers)). In force as it stands today."
    ),
    "WorkflowSpec.four_eyes": (
        "Whoever has set a run going, or had a hand in it, decides none of its checks "
        "([four eyes](workflows.md#four-eyes))."
    ),
    "WorkflowSpec.undo_on_failure": (
        "Whether finished actions are undone when the run does not complete. A cancelled run is undone in any case."
    ),
    "WorkflowSpec.undo_retry": "How an undo is tried again whose system does not answer ([fields](#saga)).",
    "WorkflowSpec.subjects": (
        "The people whom the data is about, taken from the input. What the run stores is sealed with their keys, so "
        "that it can be erased for one person."
    ),
    "WorkflowSpec.priority": "Which runs are taken up first when several are due.",
    "WorkflowSpec.begin_within": (
        "A run that has not begun so long after it was started is escalated as `unavailable`; nothing of it is done."
    ),
    "WorkflowSpec.threshold": "The value of `threshold` in this workflow's conditions; else that of `settings`.",
    "WorkflowSpec.schedule": "When it starts by itself, once per slot ([schedules](workflows.md#schedules)).",
    "WorkflowSpec.drift": "Its runs are compared with a baseline ([checks](drift.md#checks-by-themselves)).",
    "WorkflowSpec.need": "What the work is like. `check` then advises how agents should work together ([need](#need)).",
    "Need.order": (
        "`fixed`: the same steps follow each other in every run. `free`: what comes next follows from the content."
    ),
    "Need.independent": "Parts of the work do not need each other's results.",
    "Need.complexity": (
        "`low`: one agent sees all that it needs. `high`: the work has to be taken apart first, and nobody can list "
        "the parts beforehand."
    ),
    "Need.sovereignty": "Several parties do parts of it, each of which decides over its own data and money.",
    "Need.regulated": "Somebody else has to have seen it before it goes out.",
    "Need.volume": "`high`: so many runs a day that what each costs counts.",
    "Schedule.cron": "Five fields: minute, hour, day, month, weekday; or `@hourly`, `@daily`, `@weekly`, `@monthly`.",
    "Schedule.timezone": "Whose time it is: a name of the IANA database.",
    "Schedule.input": "What each run is started with.",
    "Schedule.tenant": "Whose runs they are.",
    "WorkflowSpec.steps": "What is done, in order.",
    "WorkflowSpec.trigger": "What starts it. For people: it stands in the blueprint.",
    "WorkflowSpec.systems": "The systems that it uses. For people.",
    "WorkflowSpec.data": "The data that it works with. For people.",
    "WorkflowSpec.compliance": "The rules that it has to keep. For people.",
    "WorkflowSpec.escalate_to": "The role that gets what it escalates. Without it: `operator`.",
    "WorkflowSpec.escalation": "What that role does with it. For people.",
    "WorkflowSpec.completion": "When it is done. For people.",
    "Budget.usd": "Money.",
    "Budget.tokens": "Tokens in and out.",
    "Budget.seconds": "Time worked. Time in which the run is parked does not count.",
    "Budget.calls": "Calls of tools and models.",
    "Budget.then": "What happens when it is used up: `ask` (as without it) puts a question into the inbox and waits.",
    "Limits.turns": "Turns of agents in a run.",
    "Limits.calls": (
        "Calls of tools and models in a run, refused and cached ones included; looks at the shared context and at "
        "boards, and what is written there, count too."
    ),
    "Limits.requests": (
        "Attempts at tools and models for one user's request: the run's and those of all runs below it, retries too. A "
        "resume gives no new ones."
    ),
    "Limits.retries": (
        "Second and further attempts in a run, over all layers together: at a system, at another tier, repairs of an "
        "output, steps tried again or redone, further rounds of maker and checker."
    ),
    "Limits.repeats": (
        "Identical calls (same tool, same arguments), or identical turns, of one agent. Reads that give what they "
        "never gave before are counted anew ([loops](loops.md))."
    ),
    "Limits.similar": (
        "Turns of one agent, or its calls of one tool, that are nearly the same in other words with nothing new in "
        "between ([loops](loops.md#in-other-words))."
    ),
    "Limits.similarity": (
        "Share of words in common from which on two texts are nearly the same. At 1.0, order, case and common words "
        "alone may differ."
    ),
    "Limits.handoffs": (
        "Times that control passes from one agent to another for one user's request: in the run and all runs below it."
    ),
    "Limits.messages": (
        "Messages that peers send each other for one user's request: in the run and all runs below it. What goes "
        "beyond is refused, and the peer is told."
    ),
    "Limits.depth": "Workflows started by workflows.",
    "Limits.branches": "Branches side by side in one step. `tightship check` refuses more.",
    "Limits.restarts": "Starts in a row over which the process ended with nothing recorded; then it is escalated.",
    "Limits.stall": "Time with nothing recorded and nothing in flight; then it is escalated. At least two turns' time.",
    "Limits.output_bytes": "Bytes of one output, as JSON.",
    "Behaviour.retry": "Tries more, each counted against `limits.retries`.",
    "Behaviour.after": "The pause before each of them. More than five seconds may park the run.",
    "Behaviour.use": "The agent that does it instead when the tries are used up.",
    "Behaviour.give": "With `then: continue`: the step's output.",
    "Behaviour.then": "What happens in the end.",
}

STEPS: Mapping[str, str] = {
    "Step.name": "What its output is called in conditions. An agent's step is called like the agent.",
    "Step.on": "What happens on an exception in it ([where it counts](exceptions.md#behaviours)).",
    "Step.within": "Its time limit; beyond it counts as `unavailable`.",
    "AgentStep.agent": "The agent.",
    "AgentStep.grounded": (
        "What it claims at this step has to stand in what it cites: the field, or all fields of `grounded` "
        "([grounded claims](drift.md#grounded-claims))."
    ),
    "AgentStep.with_": "Inputs by name. Those that are not given are looked up in the input, then among outputs.",
    "Sequence.steps": "The steps, one after the other. A plain list means the same.",
    "Checkpoint.that": "What has to hold. A condition that cannot be evaluated does not hold.",
    "Checkpoint.otherwise": "What happens when it does not hold.",
    "Checkpoint.redo": "The step from which on it is done again. Without it: the nearest one with an agent.",
    "Checkpoint.times": "How often it is done again before it escalates.",
    "Checkpoint.reason": "What the agent or the person is told. Without it: the condition itself.",
    "Concurrent.branches": "What runs side by side.",
    "Concurrent.on_failure": (
        "`end` ends the other branches and escalates; `escalate` lets them finish first; `keep` goes on with those "
        "that finished, unless none did."
    ),
    "Concurrent.merge": "The step's output, over what the branches gave. Without it: an object of their outputs.",
    "MakerChecker.maker": "Who makes. Its output is the step's.",
    "MakerChecker.checker": "Who checks: its output says `ok` or `approved`, and `objections`.",
    "MakerChecker.rounds": "How often the maker gets a turn.",
    "MakerChecker.accept": "Another condition for approval, in place of `ok` or `approved`.",
    "MakerChecker.then": "What happens when the rounds are used up.",
    "MakerChecker.settle": (
        "With `settle`: the rule that ends it ([the rules](#settling-a-disagreement)). The maker's answer is true, the "
        "checker's false."
    ),
    "MakerChecker.by": "With `accept_with_review`: the role that decides about the last draft.",
    "Vote.voters": "Who is asked: any steps, side by side. A human agent is a voter too; a person has one voice.",
    "Vote.compare": "What of a voter's output is its answer; the output is called `answer` in it. Without it: all.",
    "Vote.reason": "The field of a voter's output that says why.",
    "Vote.settle": "Which answer counts ([the rules](#settling-a-disagreement)). Without it: that of the majority.",
    "Vote.deadline": "The time of each voter. Who has not answered by then is absent.",
    "Vote.grounded": (
        "The field of each voter's output whose claims have to stand in what they cite, or all fields of `grounded` "
        "([grounded claims](drift.md#grounded-claims)). Whose do not, or who claims nothing, is absent."
    ),
    "Vote.need": "How many have to answer at all. With fewer nothing is settled, whatever they say.",
    "Settle.rule": "What has to be there for an answer to count ([the rules](#settling-a-disagreement)).",
    "Settle.weights": "With `weighted`: what each answer counts for, by who gives it.",
    "Settle.quorum": "With `quorum`: how many have to say the same.",
    "Settle.order": "For `priority`: the names of those who answer, the one that counts first at the front.",
    "Settle.judge": (
        "For `judge`: who is asked when they differ. It finds `answers` (each with its `reasons` and `by`) in its "
        "inputs, and gives `{answer, reason}` or the answer alone. An answer that nobody had given does not count."
    ),
    "Settle.blind_judge": "The judge does not see who said what.",
    "Settle.otherwise": (
        "What happens when the rule does not settle it: a person gets every answer with its author and reason, the run "
        "fails, the first in `order` counts, or `judge` is asked."
    ),
    "When.if_": "The condition of `then`.",
    "When.then": "What is done when `if` holds.",
    "When.cases": "Several conditions; the first that holds is taken.",
    "When.switch": "The value by which a way is taken.",
    "When.is_": "With `switch`: what is done for each value.",
    "When.else_": "What is done otherwise. Without it: nothing, and for a `switch` without a match `out_of_scope`.",
    "Case.if_": "The condition.",
    "Case.then": "What is done when it holds.",
    "Handoff.first": "Who begins.",
    "Handoff.peers": "For each agent, those to whom it may hand the work; nobody else gets it.",
    "Handoff.brief": "What has to come with the work, checked before it passes.",
    "Handoff.keep": "Fields of the brief that may be added to, and never changed or left out again.",
    "Handoff.max": "How often the work is handed over in this step. `limits.handoffs` counts for the whole request.",
    "Handoff.then": "What happens when nobody has finished by then.",
    "Handoff.as_": "A step of any kind in place of the agent of that name, for instance a workflow of its own.",
    "Manager.plan": "Who plans: its output has `tasks`.",
    "Manager.workers": "Who does the tasks, by kind: a step, or `{do: STEP, input: {FIELD: TYPE}}`.",
    "Manager.cover": "A list of texts: what the plan has to cover, each item once.",
    "Manager.answers": "How many tasks may cover the same item; more than one are settled.",
    "Manager.compare": "What of a task's result (called `answer`) is its answer to an item. Without it: all of it.",
    "Manager.settle": "How different answers to one item end ([rules](#settling-a-disagreement)).",
    "Manager.synthesise": "Who puts the results together. Its output is the step's.",
    "Manager.max_tasks": "The most tasks of a plan.",
    "Manager.concurrency": "How many tasks at once.",
    "Manager.on_failure": "Failed tasks are planned anew, or left out; with nothing done at all they always escalate.",
    "Manager.replans": "How often.",
    "Manager.deadline": "The manager's time; then `fallback` takes its place.",
    "Manager.fallback": (
        "What is done in the manager's place when its plans do not stand, tasks fail for good, it breaks, "
        "or it is late."
    ),
    "Worker.do": "The step that does such a task.",
    "Worker.input": "What a task of this kind has to be given; a plan that gives something else does not stand.",
    "Peers.agents_": "Who works on the board: agents, or steps of any kind.",
    "Peers.board": "The sub-problems: a list of at most 500.",
    "Peers.as_": "What a sub-problem is called in `key` and `claim`.",
    "Peers.key": "What a sub-problem is called among peers: a short text, different for each. Without it: itself.",
    "Peers.claim": "The business key of its work: what another run holds or has done under that key is not offered.",
    "Peers.scope": (
        "Whose board it is. With `workflow` or `tenant` all runs share the board of that `name`, and each sub-problem "
        "is done by one of them: let `key` name the occasion as well."
    ),
    "Peers.lease": "How long a claim holds; its holder's turns renew it. Then the sub-problem is open again.",
    "Peers.turns": "The most turns of one peer.",
    "Peers.messages": "The most messages that one peer sends.",
    "Peers.deadline": "The time for all of it.",
    "Peers.compare": "What of an answer (called `answer`) is compared with another peer's. Without it: all of it.",
    "Peers.settle": "How different answers to one sub-problem end ([rules](#settling-a-disagreement)).",
    "Peers.then": "What happens when nobody can move, or time runs out, with something left.",
    "Saga.steps": "What stands or falls together.",
    "Saga.then": (
        "What happens when it was undone: the failure goes on to what stands around it, the run fails, or it goes on "
        "with `give`."
    ),
    "Saga.deadline": "The time for all of it. When it is over, what was done is undone.",
    "Saga.give": "With `continue`: the saga's output.",
    "Saga.undo_retry": "How an undo is tried again whose system does not answer. Without it: twice, 1 s and 2 s later.",
    "UndoRetry.times": "Tries more.",
    "UndoRetry.after": "The pause before the first of them; each following one is twice as long, at most five minutes.",
    "Foreach.in_": "The list.",
    "Foreach.as_": "What an item is called inside. `index` is its place, from 0.",
    "Foreach.steps": "What is done for each item.",
    "Foreach.max": "The most items that are taken; more ends the run. Without it: 100.",
    "Foreach.concurrency": "How many items at once.",
    "Foreach.on_failure": "As in `concurrent`. With `keep`, an item that failed gives null.",
    "Review.when": "When a person has to look. Without it: always. One that cannot be evaluated: yes.",
    "Review.by": "The role that decides.",
    "Review.deadline": "The person's time. Without it there is no end to the waiting.",
    "Review.otherwise": "What happens when nobody decides in time. Without it: `escalate`.",
    "Review.on_reject": "What happens when the person rejects.",
    "Review.of": "The output that is reviewed, and replaced by an edit. Without it: the nearest before.",
    "Review.show": "What the person sees besides.",
    "Review.title": "The line in the inbox.",
    "Review.learn": "Its threshold learns from what people decide ([how](#a-threshold-that-learns)).",
    "Review.remind": "How long before the end of `within` reviewers are reminded.",
    "Learn.error": "The most of the released cases that may be wrong, as a share.",
    "Learn.confidence": "The probability with which that holds until the next drift or reset.",
    "Learn.audit": "The share of cases that a person sees at random, whatever the confidence, when much was learned.",
    "Learn.guarantee": "`always`: with that probability, at every moment; `mean`: in the mean over the cases that may"
    " have come, which sends fewer of them to people.",
    "Learn.sample": "The same while it learns. With 1, nothing is released before a threshold is certified.",
    "Action.tool": "The tool that writes.",
    "Action.with_": "Its arguments. Without `with` and `from`: the nearest output before.",
    "Action.from_": "An expression that gives all arguments at once.",
    "Action.claim": "The business key of this piece of work. No two runs hold the same one.",
    "Action.undo": "How it is taken back: a tool, a tool with arguments, or `none`.",
    "Action.gate": "What it was decided on has to stand when it is done ([the gate](context.md#the-gate)).",
    "Gate.agents": "The agents whose decisions it rests on.",
    "Gate.on": "Keys of the shared context, or patterns of what these agents read.",
    "Gate.when": "Decided again, it is done only if this holds; otherwise the step gives null.",
    "Gate.rounds": "How often the decision is made before it escalates.",
    "Undo.tool": "The tool that takes it back.",
    "Undo.with_": (
        "Its arguments over `args` and `result`. Without them: as the contract says, else by name from the result, "
        "then from the arguments."
    ),
    "WorkflowStep.workflow": "The workflow, as a run of its own. Its output is called like it, with `_` for `-`.",
    "WorkflowStep.with_": "Its input. Without it: this run's input.",
    "WorkflowStep.escalated": (
        "What this run goes on with where the child escalates. Without it this run escalates as well."
    ),
}

AGENT: Mapping[str, str] = {
    "AgentSpec.agent": "Its name, as steps and conditions use it.",
    "AgentSpec.owner": "Who answers for it.",
    "AgentSpec.purpose": "What it is for, in a sentence.",
    "AgentSpec.python": "`module:function` of a file in `agents/`.",
    "AgentSpec.model": "A tier of `tightship.yaml`.",
    "AgentSpec.human": "A role of `tightship.yaml`.",
    "AgentSpec.instructions": "For a model: the task and its rules.",
    "AgentSpec.input": "What it is given, looked up by name. Without it: the workflow's whole input.",
    "AgentSpec.output": "What it gives. Another shape is refused.",
    "AgentSpec.tools": "The tools that it may call, and no others.",
    "AgentSpec.confidence": "Where the confidence in its output comes from.",
    "AgentSpec.history": "For a model: how long its conversation may grow ([bounded history](drift.md#long-turns)).",
    "AgentSpec.grounded": "Its claims have to stand in what they cite ([grounded claims](drift.md#grounded-claims)).",
    "AgentSpec.drift": "What it does is compared with a baseline ([checks](drift.md#checks-by-themselves)).",
    "AgentSpec.reset": "When its code begins anew, with nothing kept in the process ([resets](drift.md#resets)).",
    "AgentSpec.audit": "Somebody else looks at a sample of its outputs ([audits](drift.md#audits)).",
    "HistorySpec.tokens": "The most that is sent of a conversation; three bytes count as a token.",
    "HistorySpec.keep": "What is always in it: inputs, or fields of what tools gave, as dotted paths.",
    "HistorySpec.compact": "What becomes of the rest: left out, or told in a line each.",
    "GroundedSpec.claims": "The field of the output: a list of objects with `claim` and `source`.",
    "GroundedSpec.sources": "What may be cited: `tools`, `context`, and inputs by name (`input.ticket`).",
    "GroundedSpec.overlap": "The share of a claim's words that one passage of its source has to have.",
    "GroundedSpec.fewest": "How many claims there have to be. At a step and at a vote: 1.",
    "ResetSpec.every": "Before the first turn after so long.",
    "ResetSpec.turns": "After so many turns.",
    "WorkspaceConfig.leaks": "Canaries are looked for by themselves ([leaks](drift.md#leaks)).",
    "LeakSpec.role": "Who gets what is found.",
    "LeakSpec.every": "How often. Slots begin at midnight UTC; each is checked once, whoever executes.",
    "LeakSpec.window": "How far back a check reads at most; what the one before has read is not read again.",
    "LeakSpec.entries": "How many entries of the ledger a check reads at most; the next one goes on from there.",
    "DriftSpec.role": "Who gets what is found.",
    "DriftSpec.every": "How often. Slots begin at midnight UTC; each is checked once, whoever executes.",
    "DriftSpec.level": "The chance of a false alarm in a year of checks, over all of them and all features.",
    "DriftSpec.effect": "Smaller differences are not told: the share of cases, or of the distribution.",
    "DriftSpec.fewest": "Runs needed on either side.",
    "DriftSpec.latest": "How many of the latest runs are compared.",
    "DriftSpec.baseline": "So many runs are the baseline where nobody has recorded one. Without it somebody has to.",
    "DriftSpec.then": "`halt`: the agent or the workflow is halted as well, until the item is decided.",
    "AuditSpec.by": "The workflow that looks at one output: given `agent`, `run`, `given`, `output`, it gives `ok`.",
    "AuditSpec.every": "How often.",
    "AuditSpec.sample": "How many outputs each time.",
    "AgentSpec.on": "What happens on an exception in its turn.",
    "AgentSpec.budget": "Its share of the run's; `seconds` are those of one turn, `then` is the workflow's without it.",
    "AgentSpec.limits": "Limits of its own within a run.",
    "AgentSpec.within": "The time of a turn; for a person the time to answer. Without it: `settings.agent_seconds`.",
    "AgentSpec.retries": "How often an output of the wrong shape is handed back before the turn fails.",
    "AgentLimits.turns": "Its turns in a run.",
    "AgentLimits.calls": "Its calls in a run.",
    "AgentLimits.repeats": "Its identical calls in a run.",
    "AgentLimits.similar": "Its turns or calls that are nearly the same in other words.",
    "AgentLimits.output_bytes": "Bytes of one output of it.",
    "Confidence.source": "How it was worked out. A model's own word about itself is none of these.",
    "Confidence.field": "The field of the output that holds it.",
    "Confidence.calibrated_on": "The recorded outcomes (a file). Without them, it releases nothing.",
    "Confidence.of": (
        "The field that is decided. With `agreement` (required): the one on which the samples have to agree. With "
        "`logprob`: the one whose tokens count; without it, the whole answer's do."
    ),
    "Confidence.samples": "With `agreement`: how often the agent is asked. Each counts as a turn.",
}

WORKSPACE: Mapping[str, str] = {
    "WorkspaceConfig.name": "The workspace's name.",
    "WorkspaceConfig.store": "Where the ledger lies: `sqlite:FOLDER`, below the workspace, or `postgresql://…`.",
    "WorkspaceConfig.connectors": "Outside systems ([connectors](connectors.md)).",
    "WorkspaceConfig.tiers": "Models, by the names that agents use.",
    "WorkspaceConfig.budgets": "Budgets above the run.",
    "WorkspaceConfig.roles": "Who holds a role. `*` stands for anybody who gives a name.",
    "WorkspaceConfig.context": "Keys of the [shared context](context.md), or patterns such as `stock/*`.",
    "WorkspaceConfig.feeds": "Outside systems that [push into the shared context](context.md#feeds), by name.",
    "FeedSpec.webhook": "It sends signed requests.",
    "FeedSpec.postgres": "It is a table of Postgres whose changes are taken.",
    "FeedSpec.broker": "It writes to a stream of Redis or of NATS JetStream.",
    "FeedSpec.key": "The key that an event is a value of. An expression over `event`, `at` and `id`, like the others.",
    "FeedSpec.value": "The value.",
    "FeedSpec.as_of": "The source's own time: seconds, or RFC 3339. `at` is when it was sent, or the change made.",
    "FeedSpec.id": "The event's name, by which it counts once. Without it: the delivery's.",
    "FeedSpec.when": "Which events count. Without it: all.",
    "FeedSpec.tenant": "Whose values it pushes.",
    "FeedSpec.workflow": "For keys whose scope is a workflow: which.",
    "WebhookFeed.secret": "What it signs with, named as `${NAME}`: 24 bytes at least, or `whsec_` and base 64.",
    "WebhookFeed.window": "How far a delivery's time may lie off; what was sent earlier is refused.",
    "WebhookFeed.max_bytes": "Bytes of a request; longer ones are refused unread.",
    "PostgresFeed.url": "The database; `${NAME}` stands for a secret.",
    "PostgresFeed.table": "The table, with its schema: `public.stock`.",
    "BrokerFeed.url": "`redis://…`, `rediss://…`, `nats://…` or `tls://…`; `${NAME}` stands for a secret.",
    "BrokerFeed.stream": "The stream.",
    "BrokerFeed.subject": "Of JetStream: messages of this subject alone.",
    "BrokerFeed.group": "The consumer group, or durable consumer; each group gets every message.",
    "BrokerFeed.max_bytes": "Bytes of a message; longer ones are noted as refused, unread.",
    "AgentSpec.reads": "Keys of the shared context, or patterns, that a [model gets a tool](context.md#models) for.",
    "AgentSpec.writes": "Keys, or patterns, that a model gets a tool to read and to write.",
    "WorkspaceConfig.overload": "By role: when too much waits for it, and what is done then.",
    "Overload.open": "The most items that may wait for the role.",
    "Overload.age": "How long the oldest of them may wait.",
    "Overload.then": (
        "`hold` only says so (`tightship inbox load`); `reassign:ROLE` hands items beyond the bound to another role; "
        "`escalate` closes such reviews as not decided in time, so that their `otherwise` counts. None approves."
    ),
    "WorkspaceConfig.notify": (
        "Outside systems that are [told what waits for people](operations.md#telling-outside-systems), by name."
    ),
    "Notify.webhook": "It is sent signed requests.",
    "Notify.roles": "Whose items. Without it: everybody's.",
    "Notify.on": "Types of items, and `reminder`: the time of one runs out. Without it: all.",
    "Notify.within": "How long it is tried after the event; once at least.",
    "NotifyWebhook.url": "`https://…`, or `http://…` on this machine; `${NAME}` stands for a secret that holds it.",
    "NotifyWebhook.secret": "What it is signed with, named as `${NAME}`: 24 bytes at least, or `whsec_` and base 64.",
    "NotifyWebhook.timeout": "How long an answer is waited for, of one minute at most.",
    "NotifyWebhook.insecure_http": "Allows `http:` to another machine.",
    "WorkspaceConfig.limits": "Bounds of every run.",
    "WorkspaceConfig.admission": "How much work is taken in ([overload](operations.md#overload)).",
    "WorkspaceConfig.breakers": (
        "What is left alone for a while when it fails, is slow or spends too much ([breakers](settings.md#breakers))."
    ),
    "WorkspaceConfig.domains": (
        "What arguments of tools have to be, by tool and argument ([domains](settings.md#domains-of-arguments))."
    ),
    "BreakersSpec.systems": "Of every system (a host, or a tool that names none) that has no breaker of its own below.",
    "BreakersSpec.providers": "Of single systems: a host, or `model.TIER`.",
    "BreakersSpec.tools": "Of single tools, whatever host they talk to.",
    "BreakersSpec.agents": "Of all calls of an agent.",
    "BreakersSpec.workflows": "Of all calls of a workflow's runs.",
    "BreakerSpec.window": "The time over which calls are counted.",
    "BreakerSpec.minimum": "Calls in it below which errors and slowness open nothing.",
    "BreakerSpec.error_rate": "The share of calls without an answer from which it opens.",
    "BreakerSpec.slow_after": "How long a call takes that counts as slow. Without it: none does.",
    "BreakerSpec.slow_rate": "The share of slow calls from which it opens.",
    "BreakerSpec.spend": "What calls may cost within the window; from there on it opens.",
    "BreakerSpec.cooldown": "How long it stays open the first time; each failed probe doubles it.",
    "BreakerSpec.longest": "How long it stays open at most.",
    "BreakerSpec.probes": "Good calls in a row that close it again.",
    "DomainCheck.exists": (
        "A reading tool that has to find the value. No answer, an empty one and `data_missing` mean that it "
        "does not exist."
    ),
    "DomainCheck.as_": "What that tool calls the value. Without it: as the argument is called.",
    "DomainCheck.one_of": "The values that are allowed.",
    "DomainCheck.that": (
        "What has to hold: a condition over `value`, `args`, `found.ARGUMENT` (what `exists` found) and `input`."
    ),
    "DomainCheck.cache": "How long what was found counts for other calls.",
    "Admission.queued": "Runs that may wait. A start of priority p is refused from (20 - p)/20 of it on.",
    "Admission.running": "Runs that all workers together work on at once; without it 1000 in each process.",
    "Admission.tenant": "What every tenant may have of both.",
    "Admission.tenants": "The same for single tenants, in place of `tenant`.",
    "Admission.workflows": "How many runs of a workflow a process works on, so that it cannot take every place.",
    "Share.queued": "Runs of the tenant that may wait.",
    "Share.running": "Runs of the tenant that are worked on at once, by all workers together.",
    "Bulkhead.running": "Runs of the workflow that are worked on at once, by all workers together.",
    "WorkspaceConfig.settings": "Everything else.",
    "TierSpec.model": "`provider:model`, as Pydantic AI names them.",
    "TierSpec.next": "The tier that takes over when this one does not answer or gives no usable answer.",
    "TierSpec.base_url": "Another server with the provider's interface. It needs a `price`.",
    "TierSpec.secret": "The name of its key. Without it: the provider's usual name.",
    "TierSpec.price": "What it costs. Without it: the price list that ships with Pydantic AI.",
    "TierSpec.max_tokens": "Tokens of one answer. It is always sent, so that the cost has a bound.",
    "TierSpec.thinking": "Tokens of reasoning for one answer.",
    "TierSpec.temperature": "Randomness. Without it: the provider's default.",
    "TierSpec.timeout": "Time for one attempt.",
    "TierSpec.requests_per_minute": "Requests that the provider allows, of all workers together.",
    "TierSpec.tokens_per_minute": (
        "Tokens in and out that the provider allows, of all workers together. A request sets its upper bound aside, "
        "which its real usage corrects."
    ),
    "TierSpec.cache_prompt": "Ask the provider to cache the stable part of prompts.",
    "TierSpec.undated": "Says that the provider offers no dated version of this model.",
    "Price.input": "For a million tokens in.",
    "Price.output": "For a million tokens out.",
    "Price.cached_input": "For a million tokens read from the provider's cache. Without it: the full price.",
    "Price.source": "Where it is stated.",
    "Price.as_of": "As of when, `YYYY-MM-DD`.",
    "Budgets.tenant": "For every tenant that has none of its own. Runs belong to the tenant `default`.",
    "Budgets.tenants": "For single tenants.",
    "Budgets.workflows": "For all runs of a workflow together.",
    "Periods.day": "For a day (UTC).",
    "Periods.month": "For a calendar month (UTC).",
    "Settings.threshold": "The value of `threshold` in conditions.",
    "Settings.agent_seconds": "Time of an agent's turn that declares no `within`.",
    "Settings.input_bytes": "Bytes of one line of input.",
}

CONTEXT: Mapping[str, str] = {
    "ContextKey.scope": "Whose it is: one value for the tenant, for each workflow, or for each run.",
    "ContextKey.writers": "The agents and roles that may write it. Nobody else may.",
    "ContextKey.readers": "The agents that may read it, beside its writers. Without it: every agent.",
    "ContextKey.feeds": "Outside systems that may push it.",
    "ContextKey.type": (
        "What it holds, [written like a field](workflows.md#how-values-are-written). Another shape is refused."
    ),
    "ContextKey.max_age": "How old it may be when a reader says nothing. Without it: of any age.",
    "ContextKey.ttl": "How long it holds after it was written; then it is no value any more.",
    "ContextKey.source": "The tool that it is read from again.",
    "ContextKey.conflict": "What ends a conflict of two writes: `first` where nothing is said.",
    "ContextKey.stale": "What a stale read does. Without it: `refresh` where there is a source, else `refuse`.",
    "ContextKey.skew": "How far a source's clock may be ahead.",
    "ContextKey.max_bytes": "Bytes of a value, as JSON.",
    "SourceSpec.tool": "A tool that reads.",
    "SourceSpec.with_": "Its arguments over `key`, and `parts`: what the stars of the pattern stand for.",
    "SourceSpec.value": "The value, over `result`. Without it: the whole answer.",
    "SourceSpec.as_of": "The source's own time, over `result`: seconds, or RFC 3339. Without it: when it was asked.",
    "ConflictRule.first": "What was written first stands; the second writer gets `ConflictingWrite`.",
    "ConflictRule.priority": "The writer who is named earlier wins; equals are treated as by `first`.",
    "ConflictRule.merge": "`module:function` in `agents/`: `merge(base, theirs, ours)` gives the value.",
    "ConflictRule.person": "A role gets both values in the inbox; what was written first stands until then.",
}

MEANINGS: Mapping[str, str] = {**WORKFLOW, **STEPS, **AGENT, **WORKSPACE, **CONTEXT, **CONNECTORS}
