"""What decides something has to have earned it, or to be trusted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.main import main
from fastslow.config.acting import acting_signals
from fastslow.config.loading.load import load_config
from fastslow.core.errors import ConfigError
from fastslow.loop.preflight import require_earned

REASON = "not earned: AUROC 0.54, first_logprob 0.71, difference -0.17 [-0.25, -0.09]"
HEAD = """name: acting
stages: [{task: "tests.support.toy_tasks:letters"}]
tracking: null
"""
CONSUMERS = {
    "fast.demonstration_signal": "fast: {{demonstration_order: signal_easy_first, "
    "demonstration_signal: {}}}",
    "fast.steps.0.demonstration_signal": "fast: {{kind: sequence, population: 2, metric_calls: 400,"
    " steps: [{{kind: demos, demonstration_order: signal_hard_first, "
    "demonstration_signal: {}}}, {{kind: demos}}]}}",
    "slow.difficulty.signal": "slow:\n  difficulty:\n    signal: {}",
    "slow.guidance.signal": "slow: {{guidance: {{kind: answer, signal: {}}}}}",
    "evaluation.route.signal": "evaluation: {{route: {{signal: {}}}}}",
}
"""Each place where a signal decides something, and how a file says so."""


@pytest.fixture(autouse=True)
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A validity report on the model of these runs, in a folder `judged`."""
    monkeypatch.chdir(tmp_path)
    judged = {"hoyer": (False, REASON), "first_entropy": (True, "earned: difference 0.1 [0, 0.2]")}
    verdicts = {
        name: {"signal": name, "earned": earned, "reason": reason}
        for name, (earned, reason) in judged.items()
    }
    content = {"schema_version": 1, "model": "smollm2-135m-instruct", "verdicts": verdicts}
    Path("judged").mkdir()
    (Path("judged") / "signals.json").write_text(json.dumps(content))
    return tmp_path


def written(consumer: str, signal: str) -> Path:
    file = Path("run.yaml")
    file.write_text(HEAD + CONSUMERS[consumer].format(signal) + "\n")
    return file


def refusal(consumer: str, signal: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        require_earned(load_config((written(consumer, signal),), overrides).config)
    return str(caught.value)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_every_consumer_needs_grounds(consumer: str) -> None:
    text = refusal(consumer, "{kind: hoyer, validity: judged}")
    assert text == (
        f"{consumer}.validity: hoyer may not act, {REASON} (judged). Earned there: first_entropy. "
        f"Set {consumer}.trusted: true to let it act all the same."
    )
    assert "`fastslow signals RUN` judges the signals of a run" in refusal(
        consumer, "{kind: hoyer}"
    )
    for signal in ("{kind: first_entropy, validity: judged}", "{kind: hoyer, trusted: true}"):
        config = load_config((written(consumer, signal),)).config
        require_earned(config)
        assert list(acting_signals(config)) == [consumer]


def test_what_a_report_says_of_another_model_counts_for_nothing() -> None:
    text = refusal(
        "slow.difficulty.signal", "{kind: first_entropy, validity: judged}", "model.name=other"
    )
    assert "judged is about the model smollm2-135m-instruct, and this run has other." in text


def test_a_signal_that_was_not_judged_and_a_report_that_is_none_are_refused() -> None:
    route = "evaluation.route.signal"
    text = refusal(route, "{kind: first_margin, validity: judged}")
    assert "judged does not judge first_margin. Known: first_entropy, hoyer." in text
    Path("judged/signals.json").write_text('{"schema_version": 1, "verdicts": 3}')
    assert "not a validity report" in refusal(route, "{kind: hoyer, validity: judged}")
    assert "nowhere" in refusal(route, "{kind: hoyer, validity: nowhere}")


@pytest.mark.parametrize("command", ["check", "train"])
def test_check_and_train_say_so_before_any_work(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written("slow.difficulty.signal", "{kind: hoyer, validity: judged}")
    assert main([command, str(file)]) == 2
    error = capsys.readouterr().err
    assert "slow.difficulty.signal.validity: hoyer may not act, not earned: AUROC 0.54" in error
    assert not Path("runs").exists()
    if command == "check":
        assert error.startswith("run.yaml:6: ")


@pytest.mark.parametrize("command", ["check", "ablate"])
def test_every_arm_of_an_ablation_is_asked(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    use = "{kind: hoyer, validity: judged}"
    Path("base.yaml").write_text(HEAD)
    Path("ablation.yaml").write_text(
        "name: arms\nbase: base.yaml\nseeds: [0]\narms:\n  plain: {}\n"
        f"  acting: {{slow: {{difficulty: {{signal: {use}}}}}}}\n"
    )
    assert main([command, "ablation.yaml"]) == 2
    assert "hoyer may not act" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_name_of_a_shipped_signal_earns_nothing_for_another_one() -> None:
    Path("signals").mkdir()
    Path("signals/first_entropy.py").write_text(SIGNAL.replace("scaled", "first_entropy"))
    use = "{kind: custom, use: first_entropy, validity: judged}"
    text = refusal("slow.guidance.signal", use)
    assert "calls its signal 'first_entropy', which is the name of a shipped one" in text


SIGNAL = """
from fastslow.plugins import Reading, Signal, SignalConfig, signal


class Scaled(SignalConfig):
    factor: float = 1.0


@signal(name="scaled", source="mine")
def scaled(config: Scaled) -> Signal:
    \"\"\"Entropy, scaled.\"\"\"
    return lambda reading: config.factor * reading.first_entropy
"""


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_signal_of_the_users_own_may_stand_everywhere(
    consumer: str, report: Path, edited: Callable[..., None]
) -> None:
    Path("signals").mkdir()
    Path("signals/scaled.py").write_text(SIGNAL)
    use = "{{kind: custom, use: scaled, params: {{{}}}, {}}}"
    file = written(consumer, use.format("factor: 2", "trusted: true"))
    config = load_config((file,)).config
    require_earned(config)
    [signal] = acting_signals(config).values()
    assert signal.kind == "custom"
    assert signal.params == {"factor": 2.0}
    with pytest.raises(
        ConfigError, match=rf"run\.yaml:\d+: {consumer}\.params\.facto: unknown key"
    ):
        load_config((written(consumer, use.format("facto: 2", "trusted: true")),))
    assert "judged does not judge scaled." in refusal(consumer, use.format("", "validity: judged"))
    edited(scaled={"signal": "scaled", "earned": True, "reason": "earned"})
    require_earned(load_config((written(consumer, use.format("", "validity: judged")),)).config)


@pytest.fixture
def edited(report: Path) -> Callable[..., None]:
    """Add verdicts to the report."""

    def edit(**verdicts: Any) -> None:
        file = report / "judged" / "signals.json"
        content = json.loads(file.read_text())
        content["verdicts"] |= verdicts
        file.write_text(json.dumps(content))

    return edit


@pytest.mark.parametrize(
    ("route", "others", "words"),
    [
        ("cheap: live", "", "(live) and evaluation.route.strong (live) are one arm. Name two"),
        ("cheap: seed", "fast: null", "alike: they differ in the prompt, and without a fast"),
        ("cheap: base", "slow: null", "alike: they differ in the weights, and without a slow"),
    ],
)
def test_a_route_needs_two_arms_that_differ(route: str, others: str, words: str) -> None:
    signal = "signal: {kind: hoyer, trusted: true}"
    text = f"{HEAD}evaluation: {{route: {{{signal}, {route}}}}}\n{others}\n"
    Path("run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^run\.yaml:4: evaluation\.route") as caught:
        load_config((Path("run.yaml"),))
    assert words in str(caught.value)


def test_a_route_does_not_choose_by_the_answer() -> None:
    file = written("evaluation.route.signal", "{kind: gold_logprob, trusted: true}")
    with pytest.raises(ConfigError, match="reads the gold answer"):
        load_config((file,))
