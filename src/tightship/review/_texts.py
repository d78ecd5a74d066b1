"""What a person is told about each kind of exception: in plain words, without knowing what an exception is.

`title` goes into the inbox list and into the log in clear, so it never holds anything of the case itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tightship.core import errors, signals


@dataclass(frozen=True, slots=True)
class Text:
    """How one kind of exception reads.

    Attributes:
        kind: the package's kind.
        title: follows the name of the step (`respond: data is missing`).
        what: what happened, as one sentence; the error's own message follows it.
        needed: what is asked of the person.
        options: id and label of each thing that the person may choose, in order.
    """

    kind: str
    title: str
    what: str
    needed: str
    options: tuple[tuple[str, str], ...]


_RETRY: Final = ("retry", "Try this step again: approve")
AGAIN: Final = (
    "again",
    "Do it again in a new run: answer {} for the same input, or an object of the fields that change",
)
"""Takes the place of trying again where the run has ended, which nothing can continue."""
_BY_HAND = ("by_hand", "Do this step by hand and enter its result")
_STOP = ("stop", "Close the case without it")

TEXTS: Final[dict[type[BaseException], Text]] = {
    errors.Unavailable: Text(
        "unavailable",
        "a system does not answer",
        "A system that this step needs does not answer.",
        "Decide whether to try again once it answers, or to do without it.",
        (_RETRY, _BY_HAND, _STOP),
    ),
    errors.DataMissing: Text(
        "data_missing",
        "data is missing",
        "Data that this step needs is not there.",
        "Enter the missing data, or say where it can be found.",
        (("provide", "Enter the missing data"), ("ask", "Ask whoever sent the case"), _STOP),
    ),
    errors.RuleConflict: Text(
        "rule_conflict",
        "two rules contradict each other",
        "Two business rules that both apply here contradict each other.",
        "Decide which rule goes first in this case.",
        (("first", "The first rule goes first"), ("second", "The second rule goes first"), _BY_HAND, _STOP),
    ),
    errors.OutOfScope: Text(
        "out_of_scope",
        "not what these agents were made for",
        "This case is outside what the agents were made for, so they have not touched it.",
        "Take the case over, or pass it on to whoever handles such cases.",
        (("take_over", "Take the case over"), ("pass_on", "Pass it on"), ("decline", "Decline it")),
    ),
    errors.LowConfidence: Text(
        "low_confidence",
        "not sure enough to decide alone",
        "The confidence in the result is below the threshold, so nothing was done with it.",
        "Choose the right answer, or give another one.",
        (("accept", "The proposed result is right"), ("other", "Give another result"), _STOP),
    ),
    errors.FormatMismatch: Text(
        "format_mismatch",
        "a record has an unexpected format",
        "A record has another format than the one that this step expects.",
        "Enter the record in the expected form, or ask its source for a correct one.",
        (("convert", "Enter it in the expected form"), ("ask_source", "Ask the source for a correct one"), _STOP),
    ),
    errors.DuplicateClaim: Text(
        "duplicate",
        "may be the same request twice",
        "Another run already does, or did, this piece of work; this one has not done it again.",
        "Say whether both are the same request.",
        (("same", "The same request: close this one"), ("different", "Another request: go on with it")),
    ),
    errors.OutcomeUnknown: Text(
        "unforeseen",
        "nobody knows whether a change was made",
        "A change was sent to a system and its answer was lost: it may or may not have been made.",
        "Look it up in that system and say whether it was made. Do not make it again before.",
        (("done", "It was made"), ("not_done", "It was not made")),
    ),
    errors.WriteFailed: Text(
        "unforeseen",
        "a system refused a change",
        "A system refused the change that this step wanted to make; nothing was changed.",
        "Find out why it was refused, and decide how the case goes on.",
        (_RETRY, _BY_HAND, _STOP),
    ),
    errors.CheckpointFailed: Text(
        "unforeseen",
        "a result did not pass its checkpoint",
        "A result did not fulfil the condition that the workflow sets, also not the second time.",
        "Correct the result, or decide that the case goes on another way.",
        (("correct", "Enter a correct result"), _RETRY, _STOP),
    ),
    errors.ChecksExhausted: Text(
        "unforeseen",
        "maker and checker do not agree",
        "The maker's result did not satisfy the checker within the agreed rounds.",
        "Decide about the last version: release it, correct it, or do it by hand.",
        (("release", "Release the last version"), ("correct", "Enter a correct version"), _STOP),
    ),
    errors.NoConsensus: Text(
        "unforeseen",
        "no agreement",
        "Those who were asked did not come to one answer by the declared rule.",
        "Read the answers and their reasons, and decide which one counts.",
        (_BY_HAND, _STOP),
    ),
    errors.BranchFailed: Text(
        "unforeseen",
        "one of several parallel steps failed",
        "One of the steps that ran side by side failed, so their results could not be joined.",
        "Look at the partial results, and decide whether to go on with them.",
        (_RETRY, ("go_on", "Go on with what is there"), _STOP),
    ),
    errors.NobodyMoves: Text(
        "stalled",
        "none of the peers can go on",
        "Agents that share work have some of it left, and none of them can go on with it.",
        "Look at what is left and who holds it, and decide how it goes on.",
        (_BY_HAND, _RETRY, _STOP),
    ),
    errors.Stalled: Text(
        "stalled",
        "the work stands still",
        "The work does not go on any more, and nothing that it waits for can still come.",
        "Look at what it was waiting for, and decide how the case goes on.",
        (_BY_HAND, _RETRY, _STOP),
    ),
    errors.Unforeseen: Text(
        "unforeseen",
        "something unforeseen happened",
        "Something happened for which no behaviour is declared, so the work was stopped.",
        "Look at the case, and decide how it goes on.",
        (_RETRY, _BY_HAND, _STOP),
    ),
    errors.LoopFound: Text(
        "limit",
        "agents go round in circles",
        "The work was stopped because agents did the same over and over, and nothing new was learned by it.",
        "Look at what was repeated, and decide how the case goes on.",
        (_BY_HAND, _RETRY, _STOP),
    ),
    errors.NearRepeat: Text(
        "limit",
        "an agent repeats itself in other words",
        "The work was stopped because an agent said or asked nearly the same over and over, and nothing new was "
        "learned by it.",
        "Look at what was repeated, and decide how the case goes on.",
        (_BY_HAND, _RETRY, _STOP),
    ),
    errors.LimitReached: Text(
        "limit",
        "a limit was reached",
        "The work was stopped because it reached one of its limits; this often means that agents go round in a circle.",
        "Look at what was repeated, and decide how the case goes on.",
        (_BY_HAND, _RETRY, _STOP),
    ),
    errors.BoundaryError: Text(
        "boundary",
        "something outside the declared boundaries was asked for",
        "An agent asked for, or returned, something that its declaration does not allow; it was refused.",
        "Do this step by hand, or have the agent or its declaration corrected.",
        (_BY_HAND, _RETRY, _STOP),
    ),
    errors.TightshipError: Text(
        "unforeseen",
        "the work could not go on",
        "The work could not go on.",
        "Look at the case, and decide how it goes on.",
        (_RETRY, _BY_HAND, _STOP),
    ),
    signals.OverBudget: Text(
        "budget",
        "the budget is used up",
        "The next step would cost more than what is left of the budget, so it was not begun.",
        "Decide whether to grant more, or to stop here.",
        (("extend", "Grant more and go on"), _STOP),
    ),
    signals.ApprovalNeeded: Text(
        "approval",
        "a person has to allow this",
        "A policy asks for a person's approval before this step.",
        "Allow the step or refuse it.",
        (("approve", "Allow it"), ("reject", "Refuse it")),
    ),
    signals.Denied: Text(
        "denied",
        "a policy does not allow this",
        "A policy does not allow this step; it was not begun.",
        "Do it by hand if that is allowed to you, or close the case.",
        (_BY_HAND, _STOP),
    ),
    signals.Halted: Text(
        "halted",
        "stopped by the kill switch",
        "Somebody switched this work off while it was under way.",
        "Take the case over, or start it again once the halt is lifted.",
        (_BY_HAND, _RETRY, _STOP),
    ),
    signals.Signal: Text(
        "stopped",
        "the work was stopped",
        "The work was stopped from outside.",
        "Decide how the case goes on.",
        (_RETRY, _STOP),
    ),
}

OF_KIND: Final = {text.kind: text for text in reversed(TEXTS.values()) if text.kind != "unforeseen"}
"""The text of each kind that has a name of its own."""
FALLBACK: Final = TEXTS[errors.Unforeseen]


def text_for(error: BaseException) -> Text:
    """The text of the error's class, or of the nearest one above it; a failed branch reads as what made it fail."""
    if isinstance(error, errors.BranchFailed) and error.kind in OF_KIND:
        return OF_KIND[error.kind]
    return next((TEXTS[cls] for cls in type(error).__mro__ if cls in TEXTS), FALLBACK)
