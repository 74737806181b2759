"""Every family of causal language models that transformers can build: right, or refused at load."""

from functools import cache

import pytest

from benchmarks.models import TABLE, Family, families, row, scan

FAMILIES = families()
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


def test_enough_families_are_right() -> None:
    refused = [name for name in FAMILIES if f"| {name} |  |" in TABLE.read_text()]
    assert len(FAMILIES) - len(refused) >= 45
    assert not {*HYBRIDS, "gpt2", "opt", "gpt_neox", "gemma3_text", "nemotron"} & {*refused}
