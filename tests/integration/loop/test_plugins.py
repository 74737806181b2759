"""Plug-ins of the user's own in one run: each is a file elsewhere, and stands in the report."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.core.errors import ConfigError, EvaluationError, StageError
from fastslow.loop import launch
from fastslow.records.jsonl import read_scores
from fastslow.results.ablation.execute import write_config
from fastslow.results.ablation.plan_file import read_plan
from fastslow.results.report import write_report
from tests.support.paths import ROOT
from tests.support.runs import TOY, no_report, outcome, start, whole_and_cut

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
REMEDY = '''
from fastslow.plugins import (
    Memory, Remedy, RemedyConfig, RemedyPrice, StageSize, Update, Weights, remedy
)

class TowardsBase(RemedyConfig):
    rate: float = 0.01
    """Share of the learning rate by which it pulls."""
    def price(self, stage: StageSize) -> RemedyPrice:
        return RemedyPrice(rows=3 * stage.earlier)

@remedy(name="towards_base", source="mine")
def towards_base(config: TowardsBase) -> Remedy:
    """Pulls the update towards nothing after every step."""
    def settle(weights: Weights, memory: Memory, update: Update, optimizer: object) -> None:
        for name, weight in weights.items():
            if ".lora_B." in name:
                weight.data.mul_(1 - update.lr * config.rate)
    def penalty(weights: Weights, memory: Memory) -> object:
        return sum((weight**2).sum() for weight in weights.values())
    return Remedy(settle=settle, penalty=penalty)
'''


def overrides_with(signal: str, measure: str) -> tuple[str, ...]:
    return (
        "evaluation.signals=[{kind: first_entropy}, "
        f'{{kind: custom, use: "{signal}", params: {{scale: 2.0}}}}]',
        f'evaluation.measures=[{{kind: custom, use: "{measure}"}}]',
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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a plug-in of each kind in a file of its name."""
    for folder, name, text in (
        ("signals", "state_norm", SIGNAL),
        ("measures", "weight_norm", MEASURE.partition('@measure(name="meddler')[0]),
        ("remedies", "towards_base", REMEDY),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("ourlab", "here")
@pytest.mark.parametrize(
    "uses",
    [("ourlab.signals:state_norm", "ourlab.measures:weight_norm"), ("state_norm", "weight_norm")],
    ids=["in modules", "in files"],
)
def test_a_signal_and_a_measure_of_the_users_own_run_resume_and_stand_in_the_report(
    tmp_path: Path, toy: list[str], monkeypatch: pytest.MonkeyPatch, uses: tuple[str, str]
) -> None:
    overrides = [*toy, *overrides_with(*uses)]
    undisturbed, broken = whole_and_cut(3, tmp_path, overrides, monkeypatch)
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


ABLATION = """
name: pulled
base: toy.yaml
seeds: [0]
common: {fast: null}
arms:
  none: {}
  pulled: {slow: {remedies: [{kind: custom, use: towards_base, params: {rate: 0.5}}]}}
"""


def test_a_remedy_in_one_file_is_listed_checked_reported_and_an_arm_of_an_ablation(
    here: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def printed(*words: str) -> str:
        assert main(words) == 0
        return capsys.readouterr().out

    what_it_does = "Pulls the update towards nothing after every step."
    assert f"remedies/towards_base.py  {what_it_does}\n" in printed("remedies", "list")
    text = printed("remedies", "show", "towards_base")
    assert text.startswith(f"towards_base: {what_it_does}\n")
    assert "rate (a number) = 0.01: Share of the learning rate by which it pulls.\n" in text

    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the tasks of the arms, not for the remedy
    (here / "toy.yaml").write_text(TOY)
    (here / "pulled.yaml").write_text(ABLATION)
    model = f"model.name={tiny_folder}"
    use = "slow.remedies=[{kind: custom, use: towards_base}]"
    checked = printed("check", "toy.yaml", model, use)
    assert "slow.remedies.0.params.rate" in checked
    assert "remedy towards_base  at most 3 rows added to an update; at a stage's end 0" in checked
    assert "pulled.yaml: ok, pulled, 2 arms, 2 runs" in printed("check", "pulled.yaml", model)

    plan = read_plan(Path("pulled.yaml"), [model])
    printed("train", str(write_config(plan.runs[0])))  # here, where everything is imported
    printed("ablate", "pulled.yaml", model, "--workers", "1")
    cards = (here / "runs" / "pulled").glob("*/run.json")
    none, pulled = sorted((card.parent for card in cards), key=lambda run: "pulled-s0" in run.name)
    weights = [
        {row.sample.weights for row in read_scores(run / "scores.jsonl") if row.row == 1}
        for run in (none, pulled)
    ]
    assert weights[0].isdisjoint(weights[1])
    write_report(pulled)
    remedies = json.loads((pulled / "report.json").read_text())["remedies"]
    assert [(r["stage"], r["name"]) for r in remedies] == [(0, "towards_base"), (1, "towards_base")]
    assert remedies[0]["loss"] is None  # nothing is earlier: no penalty
    assert remedies[1]["loss"] > 0
    assert remedies[1]["gradient_share"] > 0
    assert remedies[1]["seconds"] > 0
    page = (pulled / "report.md").read_text()
    assert "| 2 second | towards_base | " in page
    assert "towards_base" not in (none / "report.md").read_text()
