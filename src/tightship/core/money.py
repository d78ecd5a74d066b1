"""Money as integers. One unit is a nano-dollar (1e-9 USD): the cheapest token prices stay exact."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

NANO = 1_000_000_000


def to_nano(amount: str | int | float | Decimal) -> int:
    """Nano-dollars of an amount in USD, rounded half even.

    Raises:
        ValueError: the amount is no finite number.
    """
    try:
        value = Decimal(str(amount))
    except InvalidOperation:
        raise ValueError(f"{amount!r} is no amount of money") from None
    if not value.is_finite():
        raise ValueError(f"{amount!r} is no amount of money")
    return int((value * NANO).to_integral_value())


def to_usd(nano: int) -> float:
    """USD as a float, for display and JSON only; sums are made in nano-dollars."""
    return nano / NANO


def show_usd(nano: int) -> str:
    """`$0.0042`: four decimals below a dollar, two above."""
    usd = nano / NANO
    return f"${usd:,.2f}" if abs(usd) >= 1 else f"${usd:.4f}"
