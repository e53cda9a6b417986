"""Which segments are compacted, and which are left."""

from kvstore.garbage import LONGEST, Weight, choose

FULL = Weight(100, 100)


def run(*weights: Weight, garbage: float = 0.4) -> slice | None:
    return choose(weights, segment_bytes=100, garbage=garbage)


def test_nothing_is_chosen_while_too_little_is_garbage() -> None:
    assert run() is None
    assert run(FULL, Weight(100, 70), FULL) is None
    assert run(Weight(100, 70), garbage=0.3) == slice(0, 1)


def test_the_run_that_gains_most_is_chosen() -> None:
    assert run(FULL, Weight(100, 60), Weight(100, 20), FULL) == slice(2, 3)
    assert run(Weight(100, 0), Weight(100, 0), FULL) == slice(0, 2)


def test_a_run_has_one_segment_of_output_and_ends_some_time() -> None:
    assert run(Weight(100, 60), Weight(100, 60)) == slice(0, 1)
    assert run(*[Weight(100, 0)] * 50) == slice(0, LONGEST)


def test_small_segments_are_made_one_when_there_are_enough_of_them() -> None:
    assert run(*[Weight(20, 20)] * 3) is None
    assert run(FULL, *[Weight(20, 20)] * 4) == slice(1, 5)
    assert run(*[Weight(30, 30)] * 4) is None, "they don't fit into one"


def test_what_keeps_many_deletes_from_going_is_cleaned_oldest_first() -> None:
    waiting = Weight(100, 100, blocked=90, last=30)
    clean, unclean = Weight(100, 100, last=10, clean_to=30), Weight(100, 100, last=20, clean_to=9)
    assert run(clean, unclean, waiting, waiting) == slice(1, 2)
    assert run(clean, clean, waiting, waiting) == slice(2, 3), "the first of them can go itself"
    assert run(clean, unclean, waiting, FULL, FULL) is None, "too few wait"
