"""The difficulty gate: rates, bands, what is dropped, alarms, and the harm it prevents."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from fastslow.channels.slow.difficulty import (
    DifficultyGate,
    Group,
    PassRates,
    band_of,
    duplicate_frac,
)
from fastslow.channels.slow.group_settings import BANDS, DifficultyConfig
from fastslow.channels.slow.rollouts import Request, draw_rollouts, groups_of
from fastslow.core.prompts import PromptProgram
from fastslow.core.text import ngram_repetition
from fastslow.core.types import Completion, Example
from fastslow.task.graders import boxed_match, exact_match, reasoning
from fastslow.task.guarded_grader import guard_graders, has_reasoning
from tests.support.toy_tasks import rare

EDGES = (0.05, 0.25, 0.75, 0.95)


def gate_of(settings: DifficultyConfig) -> DifficultyGate:
    """A gate with bands by pass rate."""
    return DifficultyGate(settings, PassRates(settings))


def group(*rewards: float, problem: str = "p", tokens: int = 3) -> Group:
    """Rollouts with these rewards, all different and equally long."""
    return Group("t", problem, rewards, tuple((i, *range(1, tokens)) for i in range(len(rewards))))


def looping(length: int) -> Group:
    """Two rollouts that say one token over and over."""
    return Group("t", "p", (0.0, 1.0), ((7,) * length, (8,) * length))


def test_edges_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"0\.1, 0\.5, 0\.5, 0\.9 do not rise"):
        DifficultyConfig(edges=(0.1, 0.5, 0.5, 0.9))


def test_a_rate_on_an_edge_belongs_to_the_band_above_it() -> None:
    rates = (0.0, 0.05, 0.24, 0.25, 0.74, 0.75, 0.94, 0.95, 1.0)
    expected = ["unsolved", "hard", "hard", "medium", "medium", "easy", "easy", "solved", "solved"]
    assert [band_of(rate, EDGES) for rate in rates] == expected


def test_a_rate_starts_at_its_first_group_and_then_moves_by_the_newest_weight() -> None:
    bands = PassRates(DifficultyConfig(newest_weight=0.25))
    rates, p = bands.rates, Group("a", "p", (0.0,), ((1,),))
    for rate, running in ((0.8, 0.8), (0.0, 0.6), (1.0, 0.7)):
        assert bands.observe(p, rate) == band_of(running, EDGES)
        assert rates["a"]["p"] == pytest.approx(running)
    bands.observe(replace(p, task="b"), 0.1)
    assert rates["b"] == {"p": 0.1}


def test_groups_without_variance_are_dropped_and_counted() -> None:
    gate = gate_of(DifficultyConfig())
    almost = 0.1 + 0.1 + 0.1  # not 0.3 in binary
    verdict = gate.judge([group(0, 0), group(1, 1), group(0.3, almost), group(0, 1)])
    assert verdict.trained == (False, False, False, True)
    assert verdict.metrics["zero_variance_frac"] == 0.75
    assert verdict.metrics["effective_groups"] == 1


def test_every_problem_is_in_one_band_and_shares_add_up_to_one() -> None:
    gate = gate_of(DifficultyConfig())
    eighths = [group(*[1.0] * k, *[0.0] * (8 - k), problem=str(k)) for k in (0, 1, 4, 7, 8)]
    metrics = gate.judge(eighths).metrics
    assert [metrics[f"band_{band}_frac"] for band in BANDS] == [0.2] * 5


def test_a_band_that_is_not_trained_on_is_dropped_by_the_running_rate() -> None:
    gate = gate_of(DifficultyConfig(train_bands=("medium", "easy")))
    one_of_eight = group(1, 0, 0, 0, 0, 0, 0, 0)
    assert gate.judge([one_of_eight]).trained == (False,)
    assert gate.judge([group(1, 1, 1, 1, 0, 0, 0, 0)]).trained == (True,)  # rate 0.31
    assert gate.judge([one_of_eight]).trained == (False,)  # rate 0.22


def test_lucky_is_exactly_one_success() -> None:
    gate = gate_of(DifficultyConfig())
    groups = [group(1, 0, 0, 0), group(0.9, 0.4, 0, 0), group(1, 1, 0, 0), group(0.4, 0, 0, 0)]
    verdict = gate.judge(groups)
    assert verdict.lucky == (True, True, False, False)
    assert verdict.metrics["lucky_groups"] == 2


def test_completions_that_suddenly_shrink_set_off_one_alarm_that_says_by_how_much() -> None:
    gate = gate_of(DifficultyConfig())
    steady = [gate.judge([group(0, 1, tokens=20)]) for _ in range(3)]
    assert [v.metrics["alarm/length_collapse"] for v in steady] == [0, 0, 0]
    assert all(not v.alarms for v in steady)
    short = gate.judge([group(0, 1, tokens=9)])
    assert short.metrics["alarm/length_collapse"] == 1
    assert short.metrics["alarm/repetition"] == 0
    (alarm,) = short.alarms
    assert "9.0 tokens" in alarm
    assert "level of 20.0" in alarm


def test_slow_shortening_sets_off_no_alarm() -> None:
    gate = gate_of(DifficultyConfig())
    lengths = [40, 36, 32, 28, 26, 24, 22]
    verdicts = [gate.judge([group(0, 1, tokens=n)]) for n in lengths]
    assert not any(v.alarms for v in verdicts)


def test_successes_that_skip_their_reasoning_set_off_an_alarm_where_there_is_reasoning() -> None:
    gate = gate_of(DifficultyConfig())
    rewards = (1.0, 1.0, 1.0, 0.0)
    for bare, share in (
        ((True, True, False, False), 2 / 3),
        ((True, False, False, True), 1 / 3),
        ((True, True, True, False), 1.0),
    ):
        verdict = gate.judge([replace(group(*rewards), bare=bare), group(1, 0)])
        assert verdict.metrics["alarm/skipped_reasoning"] == (share > 0.5)
        assert len(verdict.alarms) == (share > 0.5)
        if verdict.alarms:
            assert verdict.alarms[0].startswith(f"skipped reasoning: a share of {share:.2f} of")
    for groups in ([group(1, 0)], [replace(group(0, 0), bare=(True, True))]):
        assert "alarm/skipped_reasoning" not in gate.judge(groups).metrics


def test_what_stands_before_the_last_box_is_reasoning() -> None:
    assert reasoning("first 1, then 2: \\boxed{1} or \\boxed{2}") == (
        "first 1, then 2: \\boxed{1} or"
    )
    assert reasoning(" \n\\boxed{1}") == ""
    assert reasoning("no answer") == "no answer"
    task = replace(rare.build("rare"), grade=boxed_match)
    guarded = guard_graders({"boxed": task}, 5.0, 0.5)["boxed"]
    assert has_reasoning(guarded.grade)
    assert has_reasoning(boxed_match)
    assert not has_reasoning(exact_match)


def test_drawn_rollouts_of_such_tasks_say_whether_they_skip_it() -> None:
    texts = ("\\boxed{1}", "So: \\boxed{1}", "nothing")
    completions = [Completion((1,), (0.0,), text, "stop") for text in texts]
    policy = SimpleNamespace(
        renderer=SimpleNamespace(prompt_ids=lambda *_: (1,)),
        sampler=SimpleNamespace(sample=lambda *_: completions),
    )
    for grade, bare in ((boxed_match, (True, False, False)), (exact_match, ())):
        task = replace(rare.build("rare"), grade=grade)
        requests = [Request(task, PromptProgram(""), Example("p", "?", "\\boxed{1}"))] * 3
        rollouts = draw_rollouts(policy, requests, 1.0, [0, 1, 2])  # type: ignore[arg-type]
        assert groups_of(rollouts, 3)[0].bare == bare


def test_looping_completions_set_off_the_repetition_alarm() -> None:
    gate = gate_of(DifficultyConfig())
    verdict = gate.judge([looping(20)])
    assert verdict.metrics["alarm/repetition"] == 1
    assert verdict.metrics["repetition_frac"] == pytest.approx(16 / 17)
    assert "repetition_frac" not in gate.judge([looping(4)]).metrics


def test_repetition_and_duplicates_by_hand() -> None:
    assert ngram_repetition((1, 2, 3, 4)) is None
    assert ngram_repetition((1, 2, 3, 4, 5)) == 0
    assert ngram_repetition((1, 2, 1, 2, 1, 2)) == pytest.approx(1 / 3)
    assert duplicate_frac(((1,), (1,), (2,), (3,))) == 0.5
    assert duplicate_frac(((1,), (2,))) == 0


def test_a_gate_read_back_from_json_judges_as_if_never_stopped() -> None:
    settings = DifficultyConfig(train_bands=("medium",))
    gate, again = gate_of(settings), gate_of(settings)
    gate.judge([group(0.7, 0, 1, problem="a", tokens=30), group(0, 1, problem="b", tokens=31)])
    again.load(json.loads(json.dumps(gate.to_json())))
    following = [group(0, 0, 1, problem="a"), group(1, 1, problem="b", tokens=2)]
    assert gate.judge(following) == again.judge(following)
    assert gate.to_json() == again.to_json()


RIGHT, WRONG = 0, 1
BASE_LOGITS = (math.log(0.55), math.log(0.08), math.log(0.37))
"""Of a right, a tempting wrong, and any other answer."""
GROUP = 8


def softmax(logits: Sequence[float]) -> list[float]:
    weights = [math.exp(x - max(logits)) for x in logits]
    return [w / sum(weights) for w in weights]


def held_out(policy: dict[str, list[float]]) -> float:
    """Chance of a right answer to a hard problem with a right key; no sampling involved."""
    return softmax(policy["hard"])[RIGHT]


def trained(settings: DifficultyConfig, seed: int, passes: int) -> dict[str, list[float]]:
    """A softmax policy after some passes over 100 problems, 10 of which have a wrong key.

    Faulty keys gather among hard problems, as arXiv 2605.28388 found: 12 are hard, 10 of them
    faulty. Problems of a kind share their logits, so that what a faulty one teaches spreads.
    """
    rng = random.Random(seed)
    policy = {"plain": list(BASE_LOGITS), "hard": list(BASE_LOGITS)}
    problems = [("plain", RIGHT)] * 88 + [("hard", RIGHT)] * 2 + [("hard", WRONG)] * 10
    gate = gate_of(settings)
    for _ in range(passes):
        for index, (kind, key) in enumerate(problems):
            chances = softmax(policy[kind])
            answers = rng.choices(range(3), chances, k=GROUP)
            rewards = tuple(float(answer == key) for answer in answers)
            drawn = Group("toy", f"{index}", rewards, tuple((answer,) for answer in answers))
            verdict = gate.judge([drawn])
            if not verdict.trained[0]:
                continue
            mean = sum(rewards) / GROUP
            deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (GROUP - 1))
            largest = max(abs(r - mean) / deviation for r in rewards)
            cap = settings.lucky_cap if verdict.lucky[0] and settings.lucky_cap else largest
            for answer, reward in zip(answers, rewards, strict=True):
                step = 0.05 / GROUP * (reward - mean) / deviation * min(1.0, cap / largest)
                for other in range(3):
                    policy[kind][other] += step * ((other == answer) - chances[other])
    return policy


@pytest.mark.parametrize("seed", range(3))
def test_bands_keep_wrong_keys_from_undoing_what_the_policy_could_do(seed: int) -> None:
    base = softmax(BASE_LOGITS)[RIGHT]
    assert held_out(trained(DifficultyConfig(lucky_cap=None), seed, passes=25)) < base - 0.2
    bands = DifficultyConfig(train_bands=("medium", "easy"))
    assert held_out(trained(bands, seed, passes=25)) >= base


@pytest.mark.parametrize("seed", range(3))
def test_a_cap_on_lucky_groups_slows_the_harm_of_wrong_keys(seed: int) -> None:
    """It does not stop it: once the wrong answer is no longer rare, no group is lucky."""
    base = softmax(BASE_LOGITS)[RIGHT]
    without = base - held_out(trained(DifficultyConfig(lucky_cap=None), seed, passes=14))
    capped = base - held_out(trained(DifficultyConfig(lucky_cap=0.5), seed, passes=14))
    assert without > 0.1
    assert capped < 0.5 * without
