"""How far an ablation is: what the runs under way have drawn so far counts."""

from pathlib import Path

from fastslow.results.ablation.execute import SLOW_UNITS, units_drawn
from tests.support.run_folder import write_run


def test_rollouts_of_every_kind_count_as_work_done(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    per_stage = 32 + SLOW_UNITS * 64 + 8
    assert units_drawn(run) == 3 * per_stage + 4 * 3 * 8


def test_a_run_without_records_or_with_damaged_ones_stops_nobody(tmp_path: Path) -> None:
    assert units_drawn(tmp_path) == 0
    (tmp_path / "events.jsonl").write_text("[]\n")
    assert units_drawn(tmp_path) == 0
