"""Time is measured here: what other tests left behind is not to be collected in it."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def small_heap() -> Iterator[None]:
    """Collections look at this test's objects only."""
    gc.freeze()
    yield
    gc.unfreeze()
