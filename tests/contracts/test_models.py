"""Every family of causal language models that transformers can build: right, or refused at load."""

from functools import cache

import pytest

from benchmarks.models import PROMPTS, TABLE, Family, build_model, families, row, scan
from fastslow.policy.policy import Policy
from tests.support.tiny import tiny_tokenizer

SLOW = ("kimi_linear", "dots3_note_text")
"""Minutes each; `python -m benchmarks.models` scans them with the others."""
FAMILIES = [name for name in families() if name not in SLOW]
HYBRIDS = ("qwen3_5_text", "qwen3_next", "lfm2", "granitemoehybrid", "falcon_h1")


@cache
def scanned(name: str) -> Family:
    return scan(name)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_a_family_is_right_or_refused_and_the_table_says_which(name: str) -> None:
    family = scanned(name)
    assert not family.wrong
    assert row(family) in TABLE.read_text().splitlines()


@pytest.mark.parametrize("name", ["gpt2", "opt", "phimoe"])
def test_nothing_is_random_in_a_loss_although_the_model_is_training(name: str) -> None:
    policy = Policy(build_model(name), tiny_tokenizer())
    policy.module.train()
    completions = [(1, 2, 3)] * len(PROMPTS)
    losses = policy.completion_logprobs(PROMPTS, completions).tolist()
    scores = policy.scorer.logprobs(PROMPTS, completions)
    for loss, expected in zip(losses, scores, strict=True):
        assert loss == pytest.approx(expected, abs=1e-5)
    assert policy.module.training


def test_enough_families_are_right() -> None:
    refused = [name for name in FAMILIES if f"| {name} |  |" in TABLE.read_text()]
    assert len(FAMILIES) - len(refused) >= 45
    assert not {*HYBRIDS, "gpt2", "opt", "gpt_neox", "gemma3_text", "nemotron"} & {*refused}
