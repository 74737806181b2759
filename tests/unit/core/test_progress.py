"""What a run says while it works."""

import io

from rich.console import Console

from fastslow.core.progress import Progress, minutes


def shown(terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, color_system=None)
    with Progress(10, console) as progress:
        progress.show("stage 1/2 [bold]odd[/bold]", "1/5", 0, {"reward": 0.25})
        progress.finish(5)
        progress.show("evaluation 1/2", "", 0, {})
    return file.getvalue()


def test_plain_lines_show_phase_step_figure_and_clock() -> None:
    first, second = shown(terminal=False).splitlines()
    assert first == "stage 1/2 [bold]odd[/bold] 1/5  reward 0.25  [0:00]"
    assert second == "evaluation 1/2   [0:00 elapsed, about 0:00 remaining]"


def test_the_live_line_of_a_terminal_takes_no_markup_from_names() -> None:
    assert "evaluation 1/2   [0:00 elapsed, about 0:00 remaining]" in shown(terminal=True)


def test_the_same_phase_is_not_printed_again_at_once() -> None:
    file = io.StringIO()
    with Progress(10, Console(file=file, width=120)) as progress:
        for step in range(5):
            progress.show("slow", f"{step}/5", step, {})
    assert len(file.getvalue().splitlines()) == 1


def test_minutes() -> None:
    assert [minutes(s) for s in (0, 59.9, 60, 3671)] == ["0:00", "0:59", "1:00", "61:11"]


def test_who_listens_is_told_of_each_step_with_the_seconds_that_remain() -> None:
    notes: list[tuple[str, str, float, float | None]] = []
    with Progress(10, Console(file=io.StringIO())) as progress:
        progress.listener = lambda *note: notes.append(note)
        progress.show("slow", "0/5", 0, {})
        progress.finish(5)
        progress.show("slow", "5/5", 5, {})
    (first, second) = notes
    assert (first[:2], first[3]) == (("slow", "0/5"), None)
    assert (second[:2], second[3]) == (("slow", "5/5"), 0.0)
    assert 0 <= first[2] <= second[2]
