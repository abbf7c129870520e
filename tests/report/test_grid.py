"""Cells of tables."""

from segpets.report.grid import number


def test_numbers_in_few_letters() -> None:
    values = [12, 3500, 1_942_611, 18.1e9, 2e12, 0.25]
    assert [number(v) for v in values] == ["12", "3.5 k", "1.94 M", "18.1 G", "2 T", "0.25"]
