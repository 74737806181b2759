"""Reasons in tables: behind a value, in place of one, or once under the table."""

from fastslow.results.render.layout import Table, Text, footnoted, row


def texts(*cells: Text, note: str = "") -> tuple[list[str], str]:
    shown = footnoted(Table("t", ("a",), tuple(row(cell) for cell in cells), note))
    assert all(cell.reason == "" for cells in shown.rows for cell in cells)
    return [cells[0].text for cells in shown.rows], shown.note


def test_a_reason_of_one_cell_stands_in_it() -> None:
    cells = (Text("+0.00", reason="no example changed"), Text("", "dim", reason="not measured"))
    assert texts(*cells, note="A note.") == (
        ["+0.00 (no example changed)", "not measured"],
        "A note.",
    )


def test_a_reason_of_several_cells_is_said_once() -> None:
    same, other = "every seed gave the same", "no seed is finished"
    cells = (
        Text("0.00 ± 0.00", reason=same),
        Text("", "dim", reason=other),
        Text("0.10 ± 0.00", reason=same),
        Text("", "dim", reason=other),
        Text("0.5"),
    )
    assert texts(*cells) == (
        ["0.00 ± 0.00 (a)", "(b)", "0.10 ± 0.00 (a)", "(b)", "0.5"],
        f"(a) {same}. (b) {other}.",
    )
