"""What a run costs: counts against hand-worked figures, estimates against their rules."""

import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.slow.remedies.base import (
    Remedy,
    RemedyConfig,
    RemedyPrice,
    StageSize,
    remedy,
)
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.config.cost import (
    KNOWN_SHAPES,
    REFERENCE,
    Cost,
    ModelShape,
    estimate_cost,
    model_shape,
    weights_gb,
)
from fastslow.config.ledger import GRPO_GROUP
from fastslow.config.loading.load import load_resolved
from fastslow.config.models import RunConfig
from fastslow.config.price import REPORTS_S
from fastslow.core.types import Example
from fastslow.records.events import RunEvent
from fastslow.records.jsonl import read_events
from fastslow.task.definition import Task
from fastslow.task.registry import build_task
from tests.support.paths import ROOT
from tests.support.toy_tasks import letters


def cost_of(**keys: Any) -> Cost:
    run = {
        "name": "run",
        "stages": [{"task": "a", "cycles": 2}, {"task": "b", "cycles": 3}],
        "cycle": {"optimizer_steps": 5, "problems": 8},
        "fast": {"population": 4, "metric_calls": 320},
        "slow": {"group": 8},
        "evaluation": {"test_examples": 64, "validation_examples": 32},
    }
    return estimate_cost(RunConfig.model_validate(run | keys))


def write_model(folder: Path, header: bytes, config: object) -> str:
    folder.mkdir()
    data = struct.pack("<Q", len(header)) + header
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


SIZES = {"num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 16, "vocab_size": 32}
HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [32, 8], "data_offsets": [0, 1024]},
    "b": {"dtype": "F32", "shape": [8], "data_offsets": [1024, 1056]},
}


def test_counts_are_those_worked_by_hand() -> None:
    cost = cost_of()
    assert cost.optimizer_steps == (2 + 3) * 5
    assert cost.slow_rollouts == 25 * 8 * 8
    assert cost.fast_rollouts == 5 * 320 + 2 * 4 * 32
    assert cost.evaluation_cells == 3 * 2
    curves, split = (1 + 2) * 16, 2 * 2 * 64
    tuned, base = 2 * (1 + 2), 2 + 2  # two texts per task visited; the base once per text
    drift = (tuned + base) * 8 + (2 + 1) * 8  # and neutral prose: every row, and once by the base
    assert cost.evaluation_rollouts == 6 * 64 + drift + curves + split


MATRIX_ALONE = {"test_examples": 8, "kl_examples": 0, "curve_examples": 0, "channel_split": False}


def evaluated(**keys: Any) -> int | None:
    return cost_of(evaluation=MATRIX_ALONE | keys).evaluation_rollouts


def test_kl_inputs_are_some_of_the_test_examples() -> None:
    tuned, base = 2 * (1 + 2), 2 + 2
    assert evaluated(kl_examples=16, neutral=False) == 48 + (tuned + base) * 8
    assert evaluated(kl_examples=16) == 48 + (tuned + base) * 8 + (2 + 1) * 16
    assert evaluated(kl_examples=0) == 48


def test_a_probe_is_counted_with_both_of_its_starts() -> None:
    def of_a_probe(**keys: Any) -> int:
        run = cost_of(probe={"task": "c", **keys}, tasks={"c": {}}).evaluation_rollouts
        plain = cost_of().evaluation_rollouts
        assert run is not None
        assert plain is not None
        return run - plain

    assert of_a_probe() == 2 * 2 * 32
    assert of_a_probe(updates=7, score_every=2, seeds=3) == 3 * 2 * 5 * 32
    assert of_a_probe(kind="grpo") == 2 * (2 * 32 + 5 * 8 * 8)
    assert GrpoConfig().group == GRPO_GROUP


def test_every_replay_is_counted() -> None:
    assert evaluated(channel_split=True) == 48 + 2 * 2 * 8
    assert evaluated(curve_examples=4) == 48 + (1 + 2) * 4
    assert evaluated(base_repeats=3) == 48 + 2 * 2 * 8
    assert evaluated(prompt_policies=("seed",)) == 48 + (1 + 2) * 8
    assert evaluated(prompt_policies=("seed", "own"), channel_split=True) == 48 + (1 + 4) * 8
    assert evaluated(reoptimize=True) == 48 + 320 + 4 * 32 + 8


def test_shrinking_is_counted_at_most() -> None:
    """Two stages: start, before and nine factors on 32; KL of 8 twice; the first task twice."""
    plain = cost_of()
    shrunk = cost_of(slow={"group": 8, "shrink": 0.95})
    extra = 2 * (11 * 32 + 2 * 8)
    assert shrunk.slow_rollouts == plain.slow_rollouts + extra + 2 * 32
    assert plain.minutes is not None
    assert shrunk.minutes is not None
    assert shrunk.minutes > plain.minutes
    own = cost_of(slow={"group": 8, "shrink": 0.95, "adapter_policy": "merge-then-new"})
    assert own.slow_rollouts == plain.slow_rollouts + extra
    never = [{"task": "a", "cycles": 2, "slow": False}, {"task": "b", "cycles": 3}]
    one = cost_of(slow={"group": 8, "shrink": 0.95}, stages=never)
    assert one.slow_rollouts == cost_of(stages=never).slow_rollouts + extra // 2


def test_a_channel_that_is_off_costs_nothing() -> None:
    assert cost_of(fast=None).fast_rollouts == 0
    assert cost_of(slow=None).slow_rollouts == cost_of(slow=None).optimizer_steps == 0
    half = cost_of(stages=[{"task": "a", "cycles": 2, "slow": False}, {"task": "b", "cycles": 3}])
    assert half.optimizer_steps == 15
    assert half.fast_rollouts == 5 * 320 + 2 * 4 * 32


def test_a_visit_without_the_fast_channel_chooses_among_the_texts_of_an_earlier_one() -> None:
    visits = [{"task": "a", "cycles": 2}, {"task": "b", "cycles": 3, "fast": False}]
    again = [*visits, {"task": "a", "cycles": 1, "fast": False}]
    assert cost_of(stages=visits).fast_rollouts == 2 * 320 + 4 * 32
    assert cost_of(stages=again).fast_rollouts == 2 * 320 + 2 * 4 * 32


def test_new_texts_are_counted_by_what_certainly_fits() -> None:
    """160 rollouts after re-scoring: labelled 40, bootstrapped 40 + 32, labelled 40."""
    assert cost_of().fast_proposals == 3
    assert cost_of(fast={"kind": "gepa"}).fast_proposals == (160 - 3 * 6) // 46
    assert cost_of(fast=None).fast_proposals is None
    assert "new prompts a cycle  at least 3" in cost_of().lines()


def test_gold_answers_cost_training_and_no_rollouts() -> None:
    grpo, taught = cost_of(), cost_of(slow={"kind": "sft"})
    bare = cost_of(slow={"kind": "sft", "gradient_context": "bare"})
    assert (taught.slow_rollouts, taught.optimizer_steps) == (0, 25)
    assert bare.minutes is not None
    assert taught.minutes is not None
    assert grpo.minutes is not None
    assert bare.minutes < taught.minutes < grpo.minutes


def test_tasks_without_a_stage_are_evaluated_all_the_same() -> None:
    assert cost_of(tasks={"c": {}}).evaluation_cells == 3 * 3


def test_whole_test_splits_have_no_count() -> None:
    cost = cost_of(evaluation={"test_examples": None})
    assert cost.evaluation_rollouts is None
    assert "evaluation rollouts  unknown: the whole test split" in cost.lines()
    assert "without the evaluation" in cost.note


def test_an_unknown_model_has_no_estimate_and_a_reason() -> None:
    cost = cost_of(model={"name": "someone/some-model"})
    assert (cost.minutes, cost.memory_gb) == (None, None)
    assert cost.note.startswith("No minutes or memory: the size of 'someone/some-model'")
    assert len(cost_of(model={"name": "é" * 100_000}).note) < 500
    assert cost.slow_rollouts == 1600


def test_what_makes_the_minutes_too_few_is_said() -> None:
    rounded = cost_of(model={"dtype": "bfloat16"})
    assert rounded.minutes == cost_of().minutes
    assert cost_of().note == (
        "Minutes and memory are estimates for 2 CPU cores, for short texts. Long inputs take "
        "several times as long. To measure this machine: fastslow check --calibrate FILE."
    )
    assert rounded.note.endswith("without instructions for bfloat16 take several times longer.")


def kept(name: str) -> tuple[float, RunConfig]:
    """Minutes that a kept run took, and its configuration."""
    folder = ROOT / "runs/reference" / name
    ends = [e for e in read_events(folder / "events.jsonl") if isinstance(e, RunEvent)]
    return ends[-1].seconds / 60, load_resolved(folder / "config.json").config


def test_a_kept_run_took_what_its_lengths_make_expect() -> None:
    """Within a factor of 1.5, with the rates of two cores, on the texts it was made of."""
    minutes, config = kept("demo")
    tasks = {
        name: build_task(name, config.task_use(name).use, config.task_use(name).params)
        for name in (*config.task_names, "stars")
    }
    cost = estimate_cost(config, tasks, lambda text: len(text) // 4 + 1)
    assert cost.minutes is not None
    assert 1 / 1.5 < cost.minutes / minutes < 1.5


def long_task(name: str, words: int) -> Task:
    """Questions of so many words, answers of one."""
    task = letters.build(name)

    def lengthened(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(replace(e, question=e.question + " word" * words) for e in examples)

    return replace(task, train=lengthened(task.train), test=lengthened(task.test))


def test_long_texts_cost_what_they_are_long() -> None:
    run = {"name": "run", "stages": [{"task": "a", "cycles": 2}, {"task": "b", "cycles": 3}]}

    def of(words: int, tokens: int = 1_000_000) -> Cost:
        tasks = {name: long_task(name, words) for name in ("a", "b")}
        bound = RunConfig.model_validate({**run, "slow": {"tokens_per_forward": tokens}})
        return estimate_cost(bound, tasks, lambda text: len(text.split()))

    short, long, in_passes = of(1), of(200), of(200, 500)
    assert long.minutes is not None
    assert short.minutes is not None
    assert long.memory_gb is not None
    assert short.memory_gb is not None
    assert long.minutes > 5 * short.minutes
    assert in_passes.memory_gb is not None
    assert in_passes.minutes is not None
    assert long.memory_gb > 2 * short.memory_gb
    assert in_passes.memory_gb < long.memory_gb / 2
    assert in_passes.minutes > long.minutes  # prompts that are cut are read again
    assert "the lengths of the tasks' texts" in long.note
    assert (long.slow_rollouts, long.fast_rollouts) == (short.slow_rollouts, short.fast_rollouts)


def test_minutes_are_those_of_the_measured_rates() -> None:
    slower = replace(REFERENCE.scaled(3), load_s=REFERENCE.load_s)
    config = RunConfig.model_validate({"name": "r", "stages": [{"task": "a"}]})
    plain, measured = estimate_cost(config, rates=REFERENCE), estimate_cost(config, rates=slower)
    assert plain.minutes is not None
    assert measured.minutes is not None
    start = (REFERENCE.load_s + REPORTS_S) / 60
    assert measured.minutes - start == pytest.approx(3 * (plain.minutes - start))
    assert measured.note.startswith("Minutes and memory are estimates from rates measured here")


def test_a_base_that_reflects_itself_takes_its_time_and_a_server_does_not() -> None:
    """Five fast phases, of `OWN_ANSWERS` answers each."""

    def minutes(**reflection: Any) -> float:
        cost = cost_of(fast={"kind": "gepa", "metric_calls": 320, "reflection": reflection})
        assert cost.minutes is not None
        return cost.minutes

    written = 0.7 * 100 * (REFERENCE.step_s + REFERENCE.row_step_s)
    own = 5 * 14 * (600 * REFERENCE.prefill_s + written) / 60
    assert minutes(max_tokens=100) - minutes(model="openai/m") == pytest.approx(own, rel=1e-3)
    assert minutes(max_tokens=200) > minutes(max_tokens=100)


def test_what_remedies_draw_and_learn_is_counted() -> None:
    """Two stages of 10 and 15 updates; the second learns from 8 rows of the first in each."""
    both: dict[str, Any] = {"group": 8, "remedies": [{"kind": "replay", "rows": 8, "keep": 20}]}
    plain, replayed = cost_of(), cost_of(slow=both)
    assert replayed.slow_rollouts == plain.slow_rollouts + 2 * 20
    assert replayed.minutes is not None
    assert plain.minutes is not None
    assert replayed.minutes > plain.minutes
    gold = {"group": 8, "remedies": [{"kind": "replay", "target": "gold"}]}
    assert cost_of(slow=gold).slow_rollouts == plain.slow_rollouts
    fisher = cost_of(slow={"group": 8, "remedies": [{"kind": "ewc", "examples": 16}]})
    assert fisher.slow_rollouts == plain.slow_rollouts + 2 * 16


def test_routers_are_counted_as_evaluation_and_take_time() -> None:
    own = {"group": 8, "adapter_policy": "new-per-stage"}
    sizes = {"test_examples": 64, "validation_examples": 32}
    plain = cost_of(slow=own)
    routed = cost_of(slow=own, evaluation={**sizes, "routers": ["surprisal"]})
    assert (plain.evaluation_rollouts, plain.minutes) != (None, None)
    assert routed.evaluation_rollouts == (plain.evaluation_rollouts or 0) + 2 * 64
    assert (routed.minutes or 0) > (plain.minutes or 0)


def test_minutes_grow_with_rollouts_and_with_the_model(tmp_path: Path) -> None:
    known = cost_of()
    more = cost_of(cycle={"optimizer_steps": 5, "problems": 9}, fast={"metric_calls": 400})
    small = cost_of(model={"name": write_model(tmp_path / "m", json.dumps(HEADER).encode(), SIZES)})
    assert known.minutes is not None
    assert more.minutes is not None
    assert small.minutes is not None
    assert small.minutes < known.minutes < more.minutes
    assert known.memory_gb is not None
    assert small.memory_gb is not None
    assert small.memory_gb < known.memory_gb


def test_a_local_folder_is_measured_from_its_headers(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", json.dumps(HEADER).encode(), SIZES)
    assert model_shape(folder) == ModelShape(32 * 8 + 8, 2, 8, 16, 32)


@pytest.mark.parametrize(
    ("header", "config"),
    [
        (b"{", SIZES),
        (b"[]", SIZES),
        (b'{"a": {"shape": "x"}}', SIZES),
        (b"{}", SIZES),
        (json.dumps(HEADER).encode(), {}),
        (json.dumps(HEADER).encode(), {"num_hidden_layers": None}),
        (json.dumps(HEADER).encode(), []),
    ],
)
def test_a_damaged_folder_is_of_unknown_size(tmp_path: Path, header: bytes, config: object) -> None:
    assert model_shape(write_model(tmp_path / "model", header, config)) is None


def test_a_header_of_impossible_length_is_not_read(tmp_path: Path) -> None:
    folder = Path(write_model(tmp_path / "model", b"{}", SIZES))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert model_shape(str(folder)) is None
    (folder / "model.safetensors").write_bytes(b"\1")
    assert model_shape(str(folder)) is None


def test_shared_weights_take_a_share_and_the_layer_in_work() -> None:
    shape = ModelShape(parameters=1_000_000, layers=8, hidden=100, intermediate=1, vocab=1000)

    def gb(processes: int, **model: str) -> float:
        keys = {"name": "run", "stages": [{"task": "a"}], "engine": {"sharding": "fsdp2"}}
        return weights_gb(RunConfig.model_validate({**keys, "model": model}), shape, processes)

    # 200 x 1000 weights of two matrices, and 800,000 of layers: a fourth, and one of eight layers
    assert gb(4) == pytest.approx(4 * (200_000 + 200_000 + 100_000) / 1e9)
    assert gb(4, dtype="bfloat16") == gb(4, device="cuda") == pytest.approx(gb(4) / 2)
    assert gb(4, device="cuda", dtype="float32") == pytest.approx(gb(4))
    assert gb(1) == pytest.approx(4e-3)
    words = cost_of(engine={"sharding": "fsdp2"}).note
    assert "0.54 GB in one alone, 0.39 in each of 2, 0.28 in each of 8" in words
    assert "sharding" not in cost_of().note


def test_the_default_model_is_known() -> None:
    assert (
        RunConfig.model_validate({"name": "r", "stages": [{"task": "a"}]}).model.name
        in KNOWN_SHAPES
    )


class Pricey(RemedyConfig):
    rows: int = 2

    def price(self, stage: StageSize) -> RemedyPrice:
        return RemedyPrice(self.rows * stage.earlier, rollouts=7, trained=stage.validation)


@remedy(name="pricey", source="made here")
def pricey(config: Pricey) -> Remedy:
    """Says what it takes."""
    return Remedy()


def test_every_remedy_has_a_line_with_the_most_that_it_takes_in_a_stage() -> None:
    uses = [
        {"kind": "replay", "rows": 3, "keep": 1500},
        {"kind": "custom", "use": f"{__name__}:pricey", "params": {"rows": 5}},
        {"kind": "l2"},
        {"kind": "replay", "target": "gold"},
    ]
    stages = [{"task": task, "cycles": 1} for task in ("a", "b", "c", "a")]
    last = {"task": "d", "cycles": 1, "slow": False}
    cost = cost_of(stages=[*stages, last], slow={"group": 8, "remedies": uses})
    assert cost.remedies == (
        ("replay", RemedyPrice(3, rollouts=1500)),
        ("pricey", RemedyPrice(5 * 2, rollouts=7, trained=32)),
        ("l2", RemedyPrice()),
        ("replay", RemedyPrice(8)),
    )
    lines = [line for line in cost.lines() if line.startswith("remedy")]
    assert lines == [
        "remedy replay        at most 3 rows added to an update; at a stage's end 1,500 rollouts, "
        "0 rows learned from",
        "remedy pricey        at most 10 rows added to an update; at a stage's end 7 rollouts, "
        "32 rows learned from",
        "remedy l2            no rows and no rollouts, by its own account",
        "remedy replay        at most 8 rows added to an update; at a stage's end 0 rollouts, "
        "0 rows learned from",
    ]
    without = cost_of(stages=[*stages, last])
    assert without.remedies == ()
    assert not any(line.startswith("remedy") for line in without.lines())
    assert cost.slow_rollouts == without.slow_rollouts + 4 * (1500 + 7)
