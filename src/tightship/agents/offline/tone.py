"""Rules of tone and compliance for a reply, each with an id; a list of patterns, so what it finds can be explained."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tightship.agents.offline.text import normalise, words

Severity = Literal["must", "should"]


@dataclass(frozen=True, slots=True)
class Remark:
    """A rule that a text breaks: its id, what it asks for, the words that broke it, and whether it must be mended."""

    rule: str
    message: str
    found: str = ""
    severity: Severity = "must"


@dataclass(frozen=True, slots=True)
class PhraseRule:
    """Words that must not stand in a reply."""

    rule: str
    message: str
    pattern: re.Pattern[str]
    severity: Severity = "must"


def _phrases(rule: str, message: str, pattern: str, severity: Severity = "must") -> PhraseRule:
    return PhraseRule(rule, message, re.compile(pattern), severity)


PHRASE_RULES: Final[tuple[PhraseRule, ...]] = (
    _phrases(
        "C-PROMISE",
        "do not promise what nobody can guarantee",
        r"\b(?:i|we) (?:guarantee|promise|swear)\b|\bguaranteed\b|\bwithout fail\b|\b100 ?%"
        r"|\bdefinitely (?:arrive|receive)\b",
    ),
    _phrases(
        "C-LIABILITY",
        "do not admit or deny legal liability",
        r"\b(?:we|i) (?:are|am|were) (?:fully |legally )?(?:liable|negligent)\b|\bour negligence\b|\bnot liable\b",
    ),
    _phrases(
        "C-COMPENSATION",
        "do not offer compensation that no rule provides for",
        r"\b(?:as an apology we (?:give|send)|as compensation|free voucher|goodwill (?:payment|voucher))\b",
    ),
    _phrases(
        "C-SECRET",
        "never ask for a password, a card number or a code",
        r"\b(?:send|tell|give|share|reply with|e-?mail) (?:us |me )?your (?:full )?"
        r"(?:password|card number|cvv|cvc|pin|security code)\b",
    ),
    _phrases(
        "C-INTERNAL",
        "do not speak of internal matters",
        r"\b(?:internal (?:note|use|policy)|fraud score|credit (?:score|band|look-?up)|our supplier charges|margin)\b",
    ),
    _phrases(
        "T-BLAME",
        "do not blame the customer",
        r"\byour (?:own )?(?:fault|mistake|error)\b"
        r"|\byou (?:should have|must have|failed to|forgot to|clearly|obviously|wrongly)\b",
    ),
    _phrases(
        "T-RUDE",
        "stay polite",
        r"\b(?:calm down|not (?:my|our) problem|whatever|stupid|ridiculous|nonsense|as i already (?:said|told you))\b",
    ),
    _phrases(
        "T-DISMISSIVE",
        "do not send the customer away without an answer",
        r"\b(?:nothing (?:we|i) can do|that'?s (?:just )?(?:how it is|our policy)|deal with it)\b",
    ),
    _phrases(
        "T-PLACEHOLDER",
        "fill in every blank",
        r"\{[^}\n]*\}|<[a-z_ ]{2,30}>|\b(?:tbd|xxx+|lorem ipsum|none none)\b|\bnull\b",
    ),
)

_GREETING: Final = re.compile(r"^\s*(?:hello|hi|dear|good (?:morning|afternoon|evening|day))\b", re.IGNORECASE)
_CLOSING: Final = re.compile(
    r"\b(?:kind regards|best regards|with regards|yours sincerely|sincerely|best wishes|thank you for your patience)\b",
    re.IGNORECASE,
)
_APOLOGY: Final = re.compile(r"\b(?:sorry|apologi[sz]e|apologies|regret)\b", re.IGNORECASE)
_SHOUTED: Final = re.compile(r"\b[A-Z]{4,}\b")
_CARD: Final = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")


def check_tone(
    text: str,
    *,
    apology: bool = False,
    acronyms: Collection[str] = (),
    longest: int = 220,
    rules: Iterable[PhraseRule] = PHRASE_RULES,
) -> list[Remark]:
    """What is wrong with the tone and the promises of a reply.

    Args:
        text: the reply as the customer would read it.
        apology: whether the case calls for an apology.
        acronyms: words in capitals that are no shouting.
        longest: the most words that a reply should have.
        rules: phrases to look for.
    """
    plain = normalise(text)
    remarks = [
        Remark(rule.rule, rule.message, match.group(), rule.severity)
        for rule in rules
        if (match := rule.pattern.search(plain)) is not None
    ]
    remarks += _form(text, apology, longest)
    shouted = [word for word in _SHOUTED.findall(text) if word not in acronyms]
    if shouted:
        remarks.append(Remark("T-SHOUTING", "do not write words in capitals", shouted[0]))
    if "!!" in text or text.count("!") > 1:
        remarks.append(Remark("T-EXCLAMATION", "one exclamation mark at most", "!"))
    card = card_number(text)
    if card is not None:
        remarks.append(Remark("C-CARD", "never repeat a card number", f"…{card[-4:]}"))
    return remarks


def _form(text: str, apology: bool, longest: int) -> list[Remark]:
    remarks: list[Remark] = []
    if not _GREETING.match(text):
        remarks.append(Remark("T-GREETING", "begin with a greeting"))
    if not _CLOSING.search(text):
        remarks.append(Remark("T-CLOSING", "end with a closing"))
    if apology and not _APOLOGY.search(text):
        remarks.append(Remark("T-APOLOGY", "say sorry: the customer had trouble"))
    count = len(words(text))
    if count > longest:
        remarks.append(Remark("T-LENGTH", f"say it in {longest} words", f"{count} words", "should"))
    return remarks


def card_number(text: str) -> str | None:
    """The first payment card number of a text: 13 to 19 digits whose check digit fits (ISO/IEC 7812-1, annex B)."""
    for match in _CARD.finditer(text):
        digits = [int(letter) for letter in match.group() if letter.isdigit()]
        if len(set(digits)) > 1 and _luhn(digits):
            return "".join(map(str, digits))
    return None


def _luhn(digits: Sequence[int]) -> bool:
    doubled = [digit * 2 if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def strangers(text: str, own: Collection[str], pattern: re.Pattern[str]) -> list[str]:
    """The identifiers of a kind in a text that do not belong to the person it is written for.

    Args:
        text: the reply.
        own: the identifiers that may appear, compared without case.
        pattern: what an identifier of that kind looks like.
    """
    allowed = {value.casefold() for value in own}
    return sorted({found for found in pattern.findall(text) if found.casefold() not in allowed})
