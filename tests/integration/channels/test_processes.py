"""One run in two processes, as torchrun starts them, against the same run in one."""

import json
from pathlib import Path

import pytest
import torch

from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.sft import sft_arguments
from fastslow.channels.slow.trl_rows import trl_arguments
from fastslow.cli.main import main
from fastslow.core.distributed import connect
from fastslow.core.errors import ConfigError
from fastslow.policy.placement import pick_device
from fastslow.records.events import (
    RemedyEvent,
    StepEvent,
)
from fastslow.records.jsonl import read_events
from tests.support.paths import ROOT
from tests.support.processes import TOGETHER, events, in_two, require_alike, torchrun
from tests.support.runs import TOY, WIDER, outcome, start
from tests.support.servers import FailingServer

pytestmark = pytest.mark.network  # torchrun's processes meet on loopback


REPLY = json.dumps({"new_instruction": "Write letters, and more of them."})
GRPO = ["slow.lr=0.001", "slow.kl_budget=4e-6", "slow.shrink=0.9"]
UNDER_GEPA = "fast={kind: gepa, population: 2, minibatch: 2, metric_calls: 28}"


def test_two_processes_give_the_adapter_of_one(tmp_path: Path, tiny_folder: Path) -> None:
    """Of GRPO under GEPA, and the reflection model is asked once; `make engines` has the others."""
    with FailingServer([200], answer=REPLY) as server:
        reflection = f"fast.reflection={{model: openai/m, api_base: '{server.api_base}'}}"
        stage = "stages=[{task: first, cycles: 1}]"
        overrides = [f"model.name={tiny_folder}", *WIDER, stage, *GRPO, UNDER_GEPA, reflection]
        alone = start(tmp_path, [*overrides, f"runs_dir={tmp_path / 'one'}"])
        asked = len(server.requests)
        both = in_two(tmp_path, overrides)
        assert len(server.requests) == 2 * asked > 0  # once more, not twice
    require_alike(alone, both)


LEADER_ALONE = """
import os, sys
from fastslow.core.distributed import by_leader, connect, disconnect

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)

def fail(error):
    raise error

connect("cpu")
heard = []
for error in (ValueError("no room"), Odd("no word", 2)):
    try:
        by_leader(lambda: fail(error))
    except Exception as err:
        heard.append(f"{type(err).__name__}: {err}")
heard.append(by_leader(lambda: f"made by {os.environ['RANK']}"))
disconnect()
with open(f"{sys.argv[1]}/{os.environ['RANK']}", "w") as file:
    file.write("|".join(heard))
"""


def test_what_the_leader_makes_alone_reaches_all_and_so_do_its_errors(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(LEADER_ALONE)
    done = torchrun(str(tmp_path / "alone.py"), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "0").read_text() == "ValueError: no room|Odd: no word|made by 0"
    other = "ValueError: no room|RuntimeError: Odd: no word|made by 0"
    assert (tmp_path / "1").read_text() == other


SHARED = """
import os, sys
import torch
from torch.distributed.tensor import DTensor
from fastslow.core.distributed import before_waiting, connect, disconnect, from_leader, is_leader
from fastslow.core.errors import ChannelError, ModelError
from fastslow.core.types import Sampling
from fastslow.policy.engine.layouts import cheapest
from fastslow.policy.engine.shards import whole_weight
from fastslow.policy.policy import load_policy, with_adapter

connect("cpu")
whole = load_policy(sys.argv[1])
base = load_policy(sys.argv[1])
base.shard("cpu")
own = dict(base.model.named_parameters())
alike = dict(whole.model.named_parameters())
shares = {name: w.to_local().numel() for name, w in own.items() if isinstance(w, DTensor)}
assert {name for name in own if ".layers." in name} == set(shares)
assert sum(shares.values()) < 0.6 * sum(alike[name].numel() for name in shares)

policies = [
    with_adapter(p, rank=2, alpha=4, target_modules="all-linear", seed=1, placement="last_third")
    for p in (whole, base)
]
generator = torch.Generator().manual_seed(3)
fresh = policies[0].adapters.copied()
noise = {name: torch.randn(w.shape, generator=generator) for name, w in fresh.items()}
for policy in policies:
    policy.adapters.put(noise)
prompts = [(5, 6, 7, 8 + i % 3) for i in range(6)]
completions = [(9, 10 + i) for i in range(6)]

def alone(policy):
    "What one process does while the other waits."
    drawn = policy.sampler.sample(prompts, Sampling(6, 1.0), range(6))
    for _ in range(2):
        policy.completion_logprobs(prompts, completions).sum().backward()
    weights = policy.adapters.trainable().values()
    return drawn, [w.grad.clone() for w in weights], policy.scorer.kl_to_base(prompts, completions)

expected = alone(policies[0])
results = alone(policies[1]) if is_leader() else None
results = from_leader(results)
assert results[0] == expected[0]
for gradient, other in zip(results[1], expected[1]):
    torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-5)
again = alone(policies[1]) if not is_leader() else None
from_leader(None)
assert again is None or again[0] == expected[0]
assert cheapest(policies[1].model, prompts, completions) != "tree"

name = "model.layers.1.mlp.down_proj"
module = policies[1].model.get_base_model().get_submodule(name).base_layer
if is_leader():
    weight = whole_weight(policies[1].model, module)
    assert torch.equal(weight, alike[f"{name}.weight"])
    try:
        weight.add_(1.0)
    except RuntimeError:
        pass
    else:
        raise AssertionError("a copy was changed, which changes no weight")
from_leader(None)

for names, words in (
    (None, "llama does not say what its layers are"),
    ({"LlamaDecoderLayer", "LlamaRotaryEmbedding"}, "llama does not read its layers one after"),
):
    unfit = load_policy(sys.argv[1])
    unfit.model._no_split_modules = names
    present = list(before_waiting)
    try:
        unfit.shard("cpu")
    except ModelError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
    before_waiting[:] = present

layer = policies[1].model.get_base_model().model.layers[1]
failing = layer.register_forward_pre_hook(lambda *_: 1 / 0, prepend=True)
for kind in (ZeroDivisionError, ChannelError):  # and not a wait without an end
    try:
        policies[1].scorer.logprobs(prompts, completions)
    except kind as error:
        print(error)
    else:
        raise AssertionError(f"no {kind}")
disconnect()
open(f"{sys.argv[2]}/{os.environ['RANK']}", "w").close()
"""


def test_a_process_may_read_the_shared_weights_while_the_other_waits(
    tmp_path: Path, tiny_folder: Path
) -> None:
    """Draws, gradients, KL and single weights are those of a model that is whole."""
    (tmp_path / "shared.py").write_text(SHARED)
    done = torchrun(str(tmp_path / "shared.py"), str(tiny_folder), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {"0", "1"} <= {path.name for path in tmp_path.iterdir()}


SHRINK = """
import os, sys
from fastslow.channels.slow.remedies.shrink import scale_down
from fastslow.policy.adapter.parts import trainable_weights
from fastslow.policy.policy import load_policy, with_adapter
from fastslow.core.distributed import connect, disconnect, is_leader

connect("cpu")
base = load_policy(sys.argv[1])
policy = with_adapter(base, rank=2, alpha=4, target_modules="all-linear", seed=1)
policy.adapters.start = policy.adapters.copied()
trained = [w for name, w in trainable_weights(policy.model).items() if ".lora_B." in name]
for weight in trained:
    weight.data.fill_(1.0)

def validate():
    # the leader gains all down to half of the update, the other process would see no gain at all
    return min(1.0, 2 * float(trained[0].mean())) if is_leader() else 0.9

result = scale_down(policy, 0.9, validate, dict)
disconnect()
with open(f"{sys.argv[2]}/{os.environ['RANK']}", "w") as file:
    file.write(f"{result.factor:.2f} {float(trained[0].mean()):.2f} {policy.weights_fingerprint()}")
"""


def test_processes_that_score_differently_shrink_to_the_leaders_factor(
    tmp_path: Path, tiny_folder: Path
) -> None:
    (tmp_path / "script.py").write_text(SHRINK)
    done = torchrun(str(tmp_path / "script.py"), str(tiny_folder), str(tmp_path))
    assert done.returncode == 0, done.stderr
    leader, other = (tmp_path / rank for rank in ("0", "1"))
    assert leader.read_text() == other.read_text()
    assert leader.read_text().startswith("0.50 0.50 ")


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_each_process_talks_through_the_gpu_its_model_is_on(
    monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("use", device)))
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda how, **_: calls.append(("join", how))
    )
    connect(pick_device(wanted))
    assert calls == [("use", "cuda:1"), ("join", "nccl")]


def test_a_process_that_sees_several_cards_trains_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL would raise: transformers takes all visible cards for one process's."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    folder = str(tmp_path)
    grpo = trl_arguments(GrpoConfig(), 8, 2, 16, output_dir=folder, use_cpu=False)
    assert grpo.n_gpu == sft_arguments(folder, "cuda:0", 4).n_gpu == 1


def test_rollouts_that_cannot_be_shared_out_are_refused(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="8 rollouts of an update cannot be shared out"):
        start(tmp_path, [f"model.name={tiny_folder}"])
    assert main(["--version"]) == 0


def test_remedies_resume_in_two_processes(tmp_path: Path, tiny_folder: Path) -> None:
    """Cut in the second cycle of the second stage; the resumed run equals one never cut.

    Here where taught rows and shared weights meet; `make engines` has every policy.
    """
    (tmp_path / "toy.yaml").write_text(TOY)
    words = [
        str(tmp_path / "toy.yaml"),
        f"model.name={tiny_folder}",
        "stages=[{task: first, cycles: 1}, {task: third, cycles: 2}]",
        "tasks.first={use: 'tests.support.toy_tasks:parity'}",
        "tasks.third={use: 'tests.support.toy_tasks:parity'}",
        *(f"evaluation.{part}=false" for part in ("channel_split", "neutral", "proxies")),
        "engine.sharding=fsdp2",
        *TOGETHER["distill"],
    ]
    result = torchrun(str(ROOT / "tests" / "support" / "cut_and_resume.py"), "3", *words)
    assert result.returncode == 0, result.stderr
    [whole] = (path.parent for path in (tmp_path / "whole").glob("*/run.json"))
    [cut] = (path.parent for path in (tmp_path / "cut").glob("*/run.json"))
    assert outcome(cut) == outcome(whole)
    assert any(e.stage == 1 for e in events(whole, RemedyEvent))
    steps = [e for e in read_events(whole / "metrics.jsonl") if isinstance(e, StepEvent)]
    assert 4.0 in {e.metrics["slow/taught_rows"] for e in steps}  # of one process alone
