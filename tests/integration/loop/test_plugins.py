"""Plug-ins of the user's own in one run: each is a file elsewhere, and stands in the report."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastslow.core.errors import ConfigError, EvaluationError, StageError
from fastslow.loop import launch
from fastslow.results.report import write_report
from tests.support.runs import cut_after_slow_phase, no_report, outcome, start

SIGNAL = '''
from fastslow.plugins import Reading, Signal, SignalConfig, signal

class Scaled(SignalConfig):
    scale: float = 1.0

@signal(name="state_norm", source="mine")
def state_norm(config: Scaled) -> Signal:
    """Length of the state before the first token."""
    return lambda reading: config.scale * float(reading.state.norm())
'''
MEASURE = '''
from collections.abc import Iterator
from fastslow.plugins import Measure, MeasureConfig, Measured, Metric, Snapshot, measure

class Nothing(MeasureConfig):
    pass

@measure(name="weight_norm", source="mine")
def weight_norm(config: Nothing) -> Measure:
    """Length of the adapter, with the mean score of every task beside it."""
    def take(snapshot: Snapshot) -> Iterator[Measured]:
        weights = snapshot.policy.adapters.copied().values()
        norm = sum(float(weight.norm()) ** 2 for weight in weights) ** 0.5
        for task in snapshot.tasks.values():
            scores = snapshot.scores(task)
            figures = (
                Metric("weight_norm", norm, None, "L2 norm of A and B together"),
                Metric("mean_score", sum(scores.values()) / len(scores), None, "mean"),
            )
            yield Measured(task.name, figures, {"visited": len(snapshot.visited)})
    return take

@measure(name="meddler", source="mine")
def meddler(config: Nothing) -> Measure:
    """Changes what it measures."""
    def take(snapshot: Snapshot) -> Iterator[Measured]:
        for weight in snapshot.policy.adapters.trainable().values():
            weight.data.mul_(2)
        return iter(())
    return take
'''
OVERRIDES = (
    "evaluation.signals=[{kind: first_entropy}, "
    '{kind: custom, use: "ourlab.signals:state_norm", params: {scale: 2.0}}]',
    'evaluation.measures=[{kind: custom, use: "ourlab.measures:weight_norm"}]',
)


@pytest.fixture
def toy(tiny_folder: Path) -> list[str]:
    """Overrides that every run of this module gets."""
    return [f"model.name={tiny_folder}"]


@pytest.fixture
def ourlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of the user's own, importable in this test alone."""
    package = tmp_path / "code" / "ourlab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "signals.py").write_text(SIGNAL)
    (package / "measures.py").write_text(MEASURE)
    monkeypatch.syspath_prepend(str(package.parent))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "ourlab"]:
        del sys.modules[name]


@pytest.mark.usefixtures("ourlab")
def test_a_signal_and_a_measure_of_the_users_own_run_resume_and_stand_in_the_report(
    tmp_path: Path, toy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*toy, *OVERRIDES]
    undisturbed = start(tmp_path, overrides)
    broken = cut_after_slow_phase(3, tmp_path, overrides, monkeypatch)
    assert outcome(launch.resume(broken, no_report)) == outcome(undisturbed)

    write_report(undisturbed)
    measured = json.loads((undisturbed / "report.json").read_text())["measured"]
    rows = {(m["kind"], m["of"], m["row"]): m for m in measured}
    for row in range(3):
        first = rows["weight_norm", "first", row]
        assert first["figures"]["weight_norm"]["value"] > 0
        assert first["numbers"]["visited"] == min(row, 2)
        norm = rows["signals", "state_norm on second", row]["figures"]["signal_mean"]["value"]
        assert norm > 0
        assert rows["signals", "first_entropy on first", row]["numbers"]["examples"] == 4
    matrix = json.loads((undisturbed / "report.json").read_text())["cells"]
    for row in range(3):
        assert rows["weight_norm", "first", row]["figures"]["mean_score"]["value"] == pytest.approx(
            matrix[row][0]["score"]
        )
    page = (undisturbed / "report.md").read_text()
    assert "## weight_norm" in page
    assert "state_norm on second" in page


@pytest.mark.usefixtures("ourlab")
def test_a_measure_that_changes_the_policy_is_refused(tmp_path: Path, toy: list[str]) -> None:
    use = 'evaluation.measures=[{kind: custom, use: "ourlab.measures:meddler"}]'
    with pytest.raises((EvaluationError, StageError), match="meddler: the policy is not the one"):
        start(tmp_path, [*toy, use])


@pytest.mark.usefixtures("ourlab")
def test_two_signals_of_one_name_and_a_misspelt_parameter_are_refused(
    tmp_path: Path, toy: list[str]
) -> None:
    one = '{kind: custom, use: "ourlab.signals:state_norm"}'
    with pytest.raises(ConfigError, match="two of them are called 'state_norm'"):
        start(tmp_path, [*toy, f"evaluation.signals=[{one}, {one}]"])
    wrong = '{kind: custom, use: "ourlab.signals:state_norm", params: {scal: 1.0}}'
    with pytest.raises(ConfigError, match=r"signals\.0\.params\.scal.*Did you mean 'scale'"):
        start(tmp_path, [*toy, f"evaluation.signals=[{wrong}]"])
