"""Star graphs at zero reward: texts open the task, weights alone never do (arXiv 2605.12484).

Scripted is the reflection LM alone: a server on this machine that always answers with one
instruction, the rule. All else is real: `launch.train`, GEPA, TRL, sampling, grading.

The policy is a tiny model that was first taught two habits, since no tiny model solves graphs by
itself: under the rule it writes the boxed path of the smallest graphs, mostly right; under the
task's own instruction it writes something else. It stands for a base model that can do the task
but never does when asked plainly. Its graphs have two arms of two nodes, so that a path is source
and goal: nothing is shown about finding paths, only about leaving zero reward.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.config.loading.load import load_config
from fastslow.core.prompts import PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import TokenIds
from fastslow.loop import launch
from fastslow.policy.render import Renderer
from fastslow.records.events import CycleEvent, PopulationEvent, TextEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.task.definition import Task
from fastslow.task.registry import find_task
from tests.support.runs import no_report
from tests.support.servers import FailingServer
from tests.support.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.network
RULE = r"Write \boxed{source,goal}."
PLAIN = "I cannot."
"""What the model says to the task's own instruction."""
SIZES = {"degree": 2, "path": 2, "nodes": 10, "train": 256, "validation": 4, "test": 16}
PARAMS = {**SIZES, "max_tokens": 16}
UPDATES, PROBLEMS, GROUP = 2, 2, 4
RUN = f"""
name: star
stages: [{{task: star_graph, cycles: 1}}]
tasks: {{star_graph: {{use: star_graph, params: {json.dumps(PARAMS)}}}}}
cycle: {{optimizer_steps: {UPDATES}, problems: {PROBLEMS}}}
slow: {{kind: grpo, group: {GROUP}, lr: 0.002}}
evaluation: {{kl_examples: 0, channel_split: false, curve_examples: 0}}
tracking: null
"""
STEPS = 110
"""Of teaching: the copied digits are mostly right by then, not always."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with its two habits; test graphs were not shown."""
    definition = find_task("star_graph")
    task = definition.build("star_graph", definition.config_class(**PARAMS))
    tokenizer, model = tiny_tokenizer(), tiny_model()
    teach(model, list(lessons(task, Renderer(tokenizer))))
    folder = tmp_path_factory.mktemp("star-model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lessons(task: Task, renderer: Renderer) -> Iterator[tuple[TokenIds, TokenIds]]:
    """Prompts and answers: the path under the rule, three times in four; PLAIN without it."""
    stream = named_random(0, "lessons")
    for number in range(16 * STEPS):
        example = stream.choice(task.train)
        follows = number % 4 > 0
        program = PromptProgram(RULE if follows else task.instruction)
        answer = renderer.answer_ids(example.answer if follows else PLAIN)
        yield renderer.prompt_ids(program, example.question), answer


def teach(model: Any, rows: list[tuple[TokenIds, TokenIds]]) -> None:
    """AdamW on the answers, 16 rows a step; digits count tenfold, as all else is learned first."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    digits = torch.tensor(tiny_tokenizer().convert_tokens_to_ids(list("0123456789")))
    for step in range(STEPS):
        batch = rows[16 * step : 16 * (step + 1)]
        width = max(len(prompt + answer) for prompt, answer in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        counts = torch.zeros(ids.shape)
        for row, (prompt, answer) in enumerate(batch):
            ids[row, : len(prompt + answer)] = torch.tensor(prompt + answer)
            counts[row, len(prompt) : len(prompt + answer)] = 1.0
        counts = (counts * (1 + 9 * torch.isin(ids, digits)))[:, 1:]
        logits = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
        losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none")
        optimizer.param_groups[0]["lr"] = 0.01 * min(1.0, (step + 1) / 20)
        optimizer.zero_grad()
        loss: Any = (losses * counts).sum() / counts.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def train(folder: Path, model: Path, *overrides: str) -> Path:
    (folder / "star.yaml").write_text(RUN)
    words = [f"model.name={model}", f"runs_dir={folder / 'runs'}", *overrides]
    return launch.train(load_config([folder / "star.yaml"], words), ["fastslow"], no_report)


def spent(run: Path) -> int:
    """All rollouts of a run but those of the evaluations, which both arms have."""
    events = read_events(run / "events.jsonl")
    cycles = [sum(e.rollouts.values()) for e in events if isinstance(e, CycleEvent)]
    return sum(cycles) + sum(e.rollouts for e in events if isinstance(e, TextEvent))


def slow_metrics(run: Path) -> list[dict[str, float | None]]:
    cycles = [e for e in read_events(run / "events.jsonl") if isinstance(e, CycleEvent)]
    return [dict(e.metrics) for e in cycles if "slow" in e.rollouts]


def accuracy(run: Path, row: int) -> float:
    scores = [r.sample.score for r in read_scores(run / "scores.jsonl") if r.row == row]
    assert len(scores) == SIZES["test"]
    return sum(scores) / len(scores)


def test_texts_leave_zero_reward_where_weights_alone_stay_for_the_same_rollouts(
    model: Path, tmp_path: Path
) -> None:
    with FailingServer([200], answer=json.dumps({"new_instruction": RULE})) as server:
        fast = (
            "fast={kind: gepa, population: 1, pool: 8, minibatch: 2, metric_calls: 24, "
            f"reflection: {{model: openai/m, api_base: '{server.api_base}'}}}}"
        )
        both = train(tmp_path, model, fast)
        assert server.requests
    [found] = [e for e in read_events(both / "events.jsonl") if isinstance(e, PopulationEvent)]
    assert found.candidates[0].program.instruction == RULE
    assert found.candidates[0].mean > 0
    [slow] = slow_metrics(both)
    assert (slow["slow/reward"] or 0) > 0
    assert (slow["slow/skipped_updates"] or 0) < UPDATES
    assert accuracy(both, row=0) == 0 < accuracy(both, row=1)

    cycles = -(-spent(both) // (UPDATES * PROBLEMS * GROUP))
    alone = train(tmp_path, model, "fast=null", f"stages.0.cycles={cycles}")
    assert spent(alone) >= spent(both)
    assert [m["slow/reward"] for m in slow_metrics(alone)] == [0.0] * cycles
    assert [m["slow/zero_variance_frac"] for m in slow_metrics(alone)] == [1.0] * cycles
    assert [m["slow/skipped_updates"] for m in slow_metrics(alone)] == [UPDATES] * cycles
    assert accuracy(alone, row=0) == accuracy(alone, row=1) == 0
    weights = {r.sample.weights for r in read_scores(alone / "scores.jsonl")}
    assert len(weights) == 1  # without a signal no update is made
