"""Kubernetes quantities, as far as volumes need them: `1Gi` is 2**30 bytes."""

from decimal import Decimal

from kvcommon.errors import KVClusterError

_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def parse_quantity(text: str) -> Decimal:
    """The number that a quantity stands for.

    Raises:
        KVClusterError: it is none.

    """
    digits = text.rstrip("mkKMGTPEi")
    try:
        return Decimal(digits) * _FACTORS[text[len(digits) :]]
    except (ArithmeticError, KeyError):
        raise KVClusterError(f"{text!r} is not a quantity: write a number with Ki, Mi, Gi, Ti or k, M, G, T") from None
