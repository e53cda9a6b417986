from pathlib import Path

from kvcommon import numbers

SETTINGS = Path(__file__).parents[3] / "docs" / "settings.md"


def numbers_in_docs() -> dict[str, float]:
    text = SETTINGS.read_text()
    table = text[text.index("## Numbers that several") : text.index("## Numbers of coordination")]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    return {row[1].strip(): float(row[2]) for row in rows}


def test_the_documents_table_is_that_of_the_code() -> None:
    code = {name: value for name, value in vars(numbers).items() if name.isupper()}
    timing = numbers.Timing()
    code |= {f"Timing.{name}": getattr(timing, name) for name in numbers.Timing.__dataclass_fields__}
    assert numbers_in_docs() == code


def test_min_in_sync_is_the_smallest_half_that_still_leaves_a_copy() -> None:
    assert [numbers.default_min_in_sync(n) for n in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
