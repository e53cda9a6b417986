"""Classes of plain values of which a node makes tens of thousands a second."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(*, order: bool = False) -> Callable[[type[T]], type[T]]:
    """A dataclass with slots that nobody changes: the type checker sees to that, as a guard at run time would cost more than to make one."""
    return dataclass(slots=True, unsafe_hash=True, order=order)
