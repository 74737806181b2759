"""What is kept of a run whose texts are not ours to publish."""

from benchmarks.keeping import withheld
from fastslow.core.prompts import Candidate
from fastslow.core.types import Metric
from fastslow.records.events import BaseDrawsEvent, FiguresEvent, PopulationEvent, ScoreRow
from fastslow.records.jsonl import event_from_json, to_json
from tests.support.run_folder import score_row, text_of


def test_texts_and_completions_go_and_reasons_of_figures_stay() -> None:
    row: ScoreRow = score_row("run", 1, "alpha", 0, 1.0)
    plain = withheld(to_json(row))
    assert plain["completion"] == "(withheld, 3 characters)"
    assert plain["reason"].startswith("(withheld")
    assert plain["score"] == 1.0

    none = Metric("stable_rank", None, "the update is zero everywhere", "sum s^2 / s_1^2")
    figures = FiguresEvent(1, "geometry", "1 alpha", (none,), {})
    assert event_from_json(withheld(to_json(figures))) == figures

    texts = PopulationEvent(0, 0, "alpha", (Candidate(text_of("alpha"), {"e1": 1.0}),))
    assert "alpha?" not in str(withheld(to_json(texts)))

    draws = BaseDrawsEvent("alpha", "t", ((1, 2), (3,)))
    assert event_from_json(to_json(draws)) == draws
    assert event_from_json(withheld(to_json(draws))) == BaseDrawsEvent("alpha", "t", ((), ()))
