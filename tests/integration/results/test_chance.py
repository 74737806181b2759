"""A report tells guessing from learning: lines of both guesses, answers, the alarm on collapse."""

import json
from pathlib import Path

from fastslow.measure.scores.guessing import Guess
from fastslow.records.events import GuessEvent
from fastslow.records.jsonl import RecordWriter
from fastslow.results.compare.build import compare_runs
from fastslow.results.compare.tables import comparison_tables
from fastslow.results.compare.write import json_text, page
from fastslow.results.deploy.model_card import card
from fastslow.results.deploy.standing import read_standing
from fastslow.results.report import build_report
from fastslow.results.report.page import page as report_page
from fastslow.results.report.sections.answers import Answers
from fastslow.results.report.sections.tasks import Tasks
from fastslow.results.report.verdict import verdict
from tests.support.run_folder import report_json, terminal, without_seal, write_run
from tests.unit.results.test_card import exported

STAGES = ("alpha", "beta")
ROWS = (
    {"alpha": "0" * 32, "beta": "0" * 32},
    {"alpha": "1" * 14 + "0" * 18, "beta": "0" * 32},
    {"alpha": "1" * 14 + "0" * 18, "beta": "1" * 30 + "0" * 2},
)
"""`alpha` ends at what one answer scores, `beta` is learned."""


def graded(task: str, right: int, n: int = 32) -> GuessEvent:
    constant = {f"e{i}": float(i >= n - right) for i in range(n)}
    return GuessEvent(task, Guess("medium", constant, dict.fromkeys(constant, 0.25), None, 4, 4))


def run_of(folder: Path, *guesses: GuessEvent, answer: str = "high") -> Path:
    """The run of `ROWS` in which every answer to `alpha` after its stage is `answer`."""
    run = without_seal(write_run(folder, ROWS, STAGES))
    lines = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        if line["row"]:
            line["completion"] = answer if line["task"] == "alpha" else f"answer {number % 5}"
    (run / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with RecordWriter(run / "events.jsonl") as events:
        events.append(*guesses)
    return run


def test_a_constant_answer_is_not_called_learned(tmp_path: Path) -> None:
    run = run_of(tmp_path, graded("alpha", 21), graded("beta", 10))
    report = build_report(run)
    alpha, beta = report.section(Tasks).summaries
    assert alpha.gain.difference is not None
    assert alpha.gain.difference.is_rise  # from 0.00 to 0.44, which is below the constant 0.66
    assert (alpha.is_learned, beta.is_learned) == (False, True)
    text = verdict(report)
    assert text.startswith("Learned 1 of 2 tasks beyond chance (beta); learning accuracy 0.69")
    assert "Not significantly above chance: alpha 0.44 after its stage, guessing 0.66." in text
    assert (
        "alpha: 32 of 32 answers are 'high' after stage 2 (a constant 'medium' would score 0.656)."
    ) in text
    assert [words for _, _, words in report.section(Tasks).outcomes()] == [
        "○ not above chance",
        "▲ learned last",
    ]


def test_every_form_of_the_report_has_the_lines_and_the_answers(tmp_path: Path) -> None:
    run = run_of(tmp_path, graded("alpha", 21), graded("beta", 10))
    data, markdown = report_json(run), (run / "report.md").read_text()
    assert data["guesses"]["alpha"]["constant"] == 0.65625
    assert data["guesses"]["beta"]["uniform"] == 0.25
    assert data["per_task"]["alpha"]["above_chance"] is False
    cells = {(cell["row"], cell["task"]): cell for cell in data["answers"]}
    assert cells[2, "alpha"] == {
        "row": 2,
        "task": "alpha",
        "n": 32,
        "answer": "high",
        "share": 1.0,
        "distinct": 1,
        "entropy": 0.0,
        "collapsed": True,
    }
    assert cells[2, "beta"]["distinct"] == 5
    assert not cells[2, "beta"]["collapsed"]
    assert "| constant answer | 0.66 'medium' | 0.31 'medium' |" in markdown
    assert "| uniform guess | 0.25 (1 of 4) | 0.25 (1 of 4) |" in markdown
    assert "'high' 32/32; 1; 0.0!" in markdown
    for text in (terminal(run), report_page(build_report(run), ())):
        assert "constant answer" in text
        assert "32 of 32 answers are" in text


def test_figures_draw_the_lines_only_where_guessing_was_graded(tmp_path: Path) -> None:
    with_lines = build_report(run_of(tmp_path / "new", graded("alpha", 21), graded("beta", 10)))
    without = build_report(run_of(tmp_path / "old"))
    for name in ("stages", "tasks"):
        captions = [
            next(drawing.caption for drawing in report.drawings() if drawing.name == name)
            for report in (with_lines, without)
        ]
        assert "uniform guess" in captions[0]
        assert "uniform guess" not in captions[1]


def test_a_run_that_did_not_grade_guessing_has_no_lines_and_says_so(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    text, data = verdict(build_report(run)), report_json(run)
    assert text.startswith("Learned 2 of 2 tasks beyond the base")
    assert "Chance is not known: the run did not grade guessing." in text
    assert "alpha: 32 of 32 answers are 'high' after stage 2." in text
    assert data["guesses"] == {}
    assert data["per_task"]["alpha"]["above_chance"] is None
    assert "constant answer" not in (run / "report.md").read_text()


def test_answers_that_were_withheld_raise_no_alarm(tmp_path: Path) -> None:
    report = build_report(run_of(tmp_path, answer="(withheld, 4 characters)"))
    assert report.section(Answers).alarms == ()
    assert (2, "alpha") not in report.section(Answers).spreads


def test_a_comparison_shows_chance_as_its_runs_graded_it(tmp_path: Path) -> None:
    paths = [
        run_of(tmp_path / "a"),
        run_of(tmp_path / "b", graded("alpha", 21), graded("beta", 10)),
    ]
    comparison = compare_runs(paths)
    table = next(table for table in comparison_tables(comparison) if table.title == "Chance")
    assert [cell.text for cell in table.rows[0]] == [
        "constant answer",
        "0.66 'medium'",
        "0.31 'medium'",
    ]
    assert json.loads(json_text(comparison))["guesses"]["alpha"]["uniform"] == 0.25
    assert "constant answer" in page(comparison, ())
    unknown = compare_runs([paths[0], run_of(tmp_path / "c")])
    assert "Chance" not in [table.title for table in comparison_tables(unknown)]


def test_the_model_card_has_chance_and_marks_scores_that_are_not_above_it(tmp_path: Path) -> None:
    run = run_of(tmp_path, graded("alpha", 21), graded("beta", 10))
    standing = read_standing(run)
    assert [task.is_above_chance for task in standing.tasks] == [False, True]
    text = card(exported(run, 2), 8)
    assert "| 0.66 (0.25), not above |" in text
    assert "| 0.31 (0.25) |" in text
    assert "| not graded |" in card(exported(run_of(tmp_path / "old"), 2), 8)
