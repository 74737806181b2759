"""The real default model, for minutes: skipped where it is neither fetched nor named."""

import json
import os
from pathlib import Path

import pytest

from fastslow.channels.fast.reflection.lm import Reflection
from fastslow.channels.fast.settings import ReflectionSettings
from fastslow.config.loading.load import load_config
from fastslow.core.errors import ModelError
from fastslow.loop import launch
from fastslow.policy.model_store import where
from fastslow.policy.policy import load_policy
from fastslow.results.report import write_report
from tests.support.servers import real_server

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
SHORT = [
    "stages=[{task: country_continent, cycles: 1}, {task: word_language, cycles: 1}]",
    "cycle.optimizer_steps=3",
    "cycle.problems=4",
    "fast.metric_calls=60",
    "evaluation.test_examples=24",
    "evaluation.validation_examples=12",
    "evaluation.kl_examples=6",
    "tracking=null",
]


@pytest.fixture(scope="module")
def model() -> str:
    """A folder with real weights: FASTSLOW_MODEL, or the default model if it was fetched."""
    if named := os.environ.get("FASTSLOW_MODEL"):
        return named
    try:
        return str(where("smollm2-135m-instruct"))
    except ModelError as err:
        pytest.skip(f"no real weights: {err}")


def test_texts_take_the_real_model_from_zero_and_the_run_resumes(
    model: str, tmp_path: Path
) -> None:
    overrides = [*SHORT, f"model.name={model}", f"runs_dir={tmp_path}"]
    loaded = load_config([Path("configs/experiments/demo.yaml")], overrides)
    run = launch.train(loaded, ["fastslow", "train"], write_report)
    report = json.loads((run / "report.json").read_text())
    base, after_first, after_last = report["scores"]
    assert max(base) <= 0.1
    assert after_first[0] >= 0.3
    assert after_last[1] >= 0.3
    assert report["metrics"]["forgetting_chaudhry"]["value"] is not None
    assert launch.resume(run, write_report) == run
    assert json.loads((run / "report.json").read_text())["scores"] == report["scores"]


@pytest.mark.network
def test_a_real_server_with_real_weights_answers_as_the_policys_own_base(
    model: str, tmp_path: Path
) -> None:
    settings = ReflectionSettings(temperature=0.0, max_tokens=24)
    own = Reflection(settings)
    ask = "Write one sentence that tells somebody to answer with the name of a continent alone."
    policy = load_policy(model)
    with own.phase(policy, seed=1):
        [expected] = own.lm(ask)
    with real_server(Path(model).resolve(), tmp_path / "serve.log") as server:
        named = settings.model_copy(update={"model": server.model, "api_base": server.api_base})
        reflection = Reflection(named)
        with reflection.phase(policy, seed=1):
            assert reflection.lm(ask) == [expected]
    assert reflection.prompt_tokens == own.prompt_tokens


@pytest.mark.network
def test_gepa_runs_to_its_end_with_a_real_server(model: str, tmp_path: Path) -> None:
    with real_server(Path(model).resolve(), tmp_path / "serve.log") as server:
        reflection = f"{{model: '{server.model}', api_base: '{server.api_base}', max_tokens: 48}}"
        overrides = [
            *SHORT,
            "stages=[{task: country_continent, cycles: 1}]",
            "cycle.optimizer_steps=1",
            "fast=null",  # the demonstration's own keys go
            f"fast={{kind: gepa, population: 2, metric_calls: 40, reflection: {reflection}}}",
            f"model.name={model}",
            f"runs_dir={tmp_path / 'runs'}",
        ]
        loaded = load_config([Path("configs/experiments/demo.yaml")], overrides)
        run = launch.train(loaded, ["fastslow", "train"], write_report)
        assert server.process.poll() is None
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    account = json.loads((run / "report.json").read_text())["reflection"]
    assert account["calls"] >= 1
    assert account["failures"] == account["away"] == 0
