"""Bytes as damage and malice make them: random ones, and good ones changed."""

from collections.abc import Sequence
from random import Random

_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)


def mutated(rng: Random, samples: Sequence[bytes]) -> bytes:
    """A sample with up to four changes, or, one time in ten, noise."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randint(0, 200))
    data = bytearray(rng.choice(samples))
    for _ in range(rng.randint(1, 4)):
        _change(rng, data, samples)
    return bytes(data)


def _change(rng: Random, data: bytearray, samples: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    end = rng.randint(at, min(len(data), at + 16))
    match rng.choice(("byte", "bit", "cut", "drop", "twice", "insert", "number", "splice")):
        case "byte":
            data[at : at + 1] = rng.randbytes(1)
        case "bit" if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case "cut":
            del data[at:]
        case "drop":
            del data[at:end]
        case "twice":
            data[at:at] = data[at:end] * rng.randint(1, 3)
        case "insert":
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        case "number":
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice((*_EXTREMES, rng.randint(0, 400), rng.randint(0, 400))) & ((1 << 8 * width) - 1)
            data[at : at + width] = value.to_bytes(width, "little")
        case "splice":
            other = rng.choice(samples)
            data[at:] = other[rng.randint(0, len(other)) :]
