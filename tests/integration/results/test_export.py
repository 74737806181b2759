"""Exports are used as their cards say, by programs that know nothing of the run."""

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastslow.channels.fast.dspy_programs import load_program
from fastslow.cli.main import main
from fastslow.config.loading.load import load_resolved
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.types import Example, Sampling, TokenIds
from fastslow.loop.build import build_tasks
from fastslow.loop.run import Run
from fastslow.measure.evaluator import Evaluator
from fastslow.policy.policy import load_policy
from fastslow.policy.render import Renderer, chat_messages
from fastslow.policy.saved import ROUTER_FILE, WEIGHTS_FILE, fingerprint_of_file, read_kept
from fastslow.records.events import FiguresEvent
from fastslow.records.jsonl import read_events
from fastslow.results.deploy.export import export
from fastslow.results.deploy.export_files import write_tokenizer
from fastslow.results.deploy.standing import read_standing
from fastslow.task.definition import Task
from fastslow.task.registry import build_task
from tests.integration.results.test_rollback import loaded_policy, recorded, toy_run
from tests.support.paths import ROOT
from tests.support.run_folder import without_seal
from tests.support.tiny import save_tiny, tiny_tokenizer

KINDS = {
    "merge-then-new": ("slow.adapter_policy=merge-then-new",),
    "new-per-stage": (
        "slow.adapter_policy=new-per-stage",
        "evaluation.routers=[nearest_mean]",
        "tasks.second.params.wanted=bnopqrst",  # questions that are neither alike nor told apart
    ),
    "merging": ("slow.adapter_policy=new-per-stage", "slow.remedies=[{kind: merge, how: slerp}]"),
    "texts alone": ("slow=null",),
}
PEFT_FILES = {"adapter_config.json", WEIGHTS_FILE}


def text_for(task: str) -> PromptProgram:
    """What this model would not find by itself: demonstrations with all that can go wrong."""
    shown = (Demonstration('A "quote"\nand {{ braces }}?', "ab"), Demonstration("```é ", "c|d"))
    return PromptProgram(f"Write letters for {task}.\n- And <b>.", shown)


def evolve(parts: Run, task: Task, stage: int) -> None:
    """In place of `choose_text`."""
    parts.policy.live[task.name] = text_for(task.name)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights: what it says depends on what it is asked."""
    folder = save_tiny(tmp_path_factory.mktemp("base"))
    weights = load_file(folder / "model.safetensors")
    larger = {name: w if "norm" in name else w * 12 for name, w in weights.items()}
    save_file(larger, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, base: Path) -> dict[str, Path]:
    """A finished run of each kind."""
    light = [
        "stages=[{task: first, cycles: 1}, {task: second, cycles: 1}]",
        *(f"evaluation.{name}=false" for name in ("channel_split", "neutral", "geometry")),
        "evaluation.proxies=false",
    ]
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastslow.loop.stages.choose_text", evolve)
        for kind, overrides in KINDS.items():
            folder = tmp_path_factory.mktemp(kind.replace(" ", "-"))
            made[kind] = toy_run(folder, base, *light, *overrides)
    return made


@pytest.fixture(scope="module")
def exports(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    made = {kind: export(run, out=folder / kind) for kind, run in runs.items()}
    made["merged"] = export(runs["merge-then-new"], merge=True, out=folder / "merged")
    made["first stage"] = export(runs["merge-then-new"], stage=1, out=folder / "first stage")
    return made


def run_of(runs: dict[str, Path], kind: str) -> Path:
    return runs[kind if kind in runs else "merge-then-new"]


def questions(run: Path, task: str) -> dict[str, str]:
    """Question of each test example, by its id."""
    loaded = load_resolved(run / "config.json")
    built = build_task(task, loaded.config.task_use(task).use, loaded.task_params[task])
    sample = Evaluator(loaded.config.evaluation.test_examples, 1).test_sample(built)
    return {example.id: example.question for example in sample}


def snippets(folder: Path, language: str = "python") -> list[str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)


def asked(snippet: str, task: str, question: str) -> str:
    """The snippet with another task and question."""
    shown = re.search(r"(?:prompts|programs)/(\w+)", snippet)
    assert shown
    snippet = snippet.replace(shown[0], shown[0].replace(shown[1], task))
    pattern = r'^((?:folder, )?question = (?:"\.", )?).*$'
    return re.sub(pattern, lambda m: m[1] + ascii(question), snippet, count=1, flags=re.MULTILINE)


def executed(jobs: Sequence[tuple[Path, str]]) -> list[str]:
    """What each piece of code prints, run in its folder, all in one fresh interpreter."""
    program = (
        "import contextlib, io, json, os, sys\n"
        "for folder, code in json.load(sys.stdin):\n"
        "    os.chdir(folder); out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out): exec(code, {})\n"
        "    print(json.dumps(out.getvalue()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        input=json.dumps([(str(folder), code) for folder, code in jobs]),
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_lines_for_transformers_give_the_recorded_completions(
    runs: dict[str, Path], exports: dict[str, Path]
) -> None:
    jobs, expected = [], []
    for kind, folder in exports.items():
        run = run_of(runs, kind)
        row = 1 if kind == "first stage" else 2
        found = recorded(run, row)
        code = snippets(folder)[0]
        assert len(code.splitlines()) <= 10
        for task in ("first", "second")[:row]:
            for example, question in list(questions(run, task).items())[:2]:
                jobs.append((folder, asked(code, task, question)))
                expected.append(found[task, example].completion + "\n")
        jobs.append((folder, code))  # as it stands, with the question that the card shows
        literal = re.search(r'question = "\.", (.*)', code)
        assert literal
        last = "first" if row == 1 else "second"
        ids = {asked: example for example, asked in questions(run, last).items()}
        expected.append(found[last, ids[ast.literal_eval(literal[1])]].completion + "\n")
    assert executed(jobs) == expected
    assert len(set(expected)) > 4  # the model does not say one thing to everything


def test_the_lines_of_the_router_give_the_runs_routes_and_answers(
    runs: dict[str, Path], exports: dict[str, Path]
) -> None:
    """Every test question of both tasks, in plain transformers and PEFT."""
    folder, run = exports["new-per-stage"], runs["new-per-stage"]
    [code] = [code for code in snippets(folder) if "router.safetensors" in code]
    by_example = {
        (task, example): question
        for task in ("first", "second")
        for example, question in questions(run, task).items()
    }
    literals = [ascii(question).replace("\\", r"\\") for question in by_example.values()]
    jobs = [(folder, re.sub(r'(question = "\.", ).*', rf"\1{ask}", code)) for ask in literals]
    *lines, shown = executed([*jobs, (folder, code)])
    printed = dict(zip(by_example, lines, strict=True))
    assert shown in lines
    routes = {key: line.partition(": ")[0] for key, line in printed.items()}

    loaded, policy = loaded_policy(run)
    policy.load(read_standing(run).folder)
    tasks = build_tasks(loaded, ("first", "second"))
    for name in tasks:
        [event] = [
            e for e in read_events(run / "events.jsonl")
            if isinstance(e, FiguresEvent) and (e.kind, e.row, e.of) == ("router", 2, name)
        ]  # fmt: skip
        of_task = [routes[key] for key in routes if key[0] == name]
        for end in tasks:
            share = event.numbers[f"nearest_mean/sent/{end}"]
            assert of_task.count(end) / len(of_task) == share
    assert set(routes.values()) == {"first", "second"}
    matrix = recorded(run, 2)
    for (name, example), question in by_example.items():
        end = routes[name, example]
        if end == name:
            expected = matrix[name, example].completion
        else:
            asking, sampling = Example("-", question, ""), Sampling(tasks[end].max_tokens)
            with policy.adapters.serving(end):
                [answer] = policy.complete([(text_for(end), asking)], sampling, [0])
            expected = answer.text
        assert printed[name, example] == f"{end}: {expected}\n"


def test_a_damaged_or_incomplete_router_is_refused_and_other_exports_have_none(
    runs: dict[str, Path],
    exports: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    have = {kind for kind, folder in exports.items() if (folder / ROUTER_FILE).exists()}
    assert have == {"new-per-stage"}
    run = without_seal(shutil.copytree(runs["new-per-stage"], tmp_path / "run"))
    first = export(
        run, trust=True, stage=1, out=tmp_path / "first"
    )  # one task: nothing to route between
    assert not (first / ROUTER_FILE).exists()
    means = read_standing(run).folder / ROUTER_FILE
    save_file({"first": load_file(means)["first"]}, means)
    for name in ("KeyError: 'second'", "FileNotFoundError", "SafetensorError"):
        assert main(["export", "--trust", str(run), "--out", str(tmp_path / "out")]) == 2
        assert f"the means that questions are routed by cannot be read, got {name}" in (
            " ".join(capsys.readouterr().err.split())
        )
        assert not (tmp_path / "out").exists()
        if means.exists():
            means.unlink()
        else:
            means.write_bytes(b"x" * 20)


class ChatServer:
    """Speaks OpenAI's chat API as vLLM does: the export's tokenizer renders what it is sent."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder)
        self.settings = GenerationConfig.from_pretrained(folder)
        self.prompts: list[TokenIds] = []

    def answer(self, request: dict[str, Any]) -> str:
        assert request["model"] == "policy"
        assert request["temperature"] == 0
        chat = self.tokenizer.apply_chat_template(
            request["messages"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        prompt = chat["input_ids"]
        self.prompts.append(tuple(prompt[0].tolist()))
        limit = request.get("max_tokens") or request["max_completion_tokens"]
        self.settings.max_new_tokens = limit
        ids = self.model.generate(**chat, generation_config=self.settings)
        return str(self.tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True))

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        """Its port."""
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                message = {"role": "assistant", "content": chat.answer(request)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "policy"}
                body = json.dumps({**reply, "choices": [choice], "usage": usage}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.mark.network
def test_the_lines_for_dspy_give_the_recorded_completions_from_the_same_tokens(
    runs: dict[str, Path], exports: dict[str, Path]
) -> None:
    folder, run = exports["merged"], runs["merge-then-new"]
    found = recorded(run, 2)
    code = snippets(folder)[-1]
    assert len(code.splitlines()) <= 10
    server = ChatServer(folder)
    renderer = Renderer(tiny_tokenizer())
    jobs, expected, prompts = [], [], []
    with server.serving() as port:
        for task in ("first", "second"):
            for example, question in list(questions(run, task).items())[:4]:
                jobs.append((folder, asked(code, task, question).replace(":8000/", f":{port}/")))
                expected.append(found[task, example].completion + "\n")
                prompts.append(renderer.prompt_ids(text_for(task), question))
        assert executed(jobs) == expected
    assert server.prompts == prompts


def test_one_token_sequence_for_the_run_and_every_form_of_the_export(
    exports: dict[str, Path], base: Path
) -> None:
    from transformers import AutoTokenizer

    policy = load_policy(str(base))
    for folder in exports.values():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for file in (folder / "prompts").iterdir():
            prompt = json.loads(file.read_text())
            program = load_program(folder / "programs" / file.stem).program()
            assert program == text_for(file.stem)
            assert program.text_hash == prompt["text_hash"]
            for question in ("test 1 a", " two\nlines ``` "):
                chat = [*prompt["messages"], {"role": "user", "content": question}]
                ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
                assert tuple(ids) == policy.renderer.prompt_ids(program, question)


REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "\n{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)


DATED = (
    "{{ strftime_now('%d %b %Y') }} {{ 'loud' if loud else 'quiet' }}{% for message in messages %}"
    "<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<model>: {% endif %}"
)


@pytest.mark.parametrize(
    ("template", "arguments"),
    [(None, {}), (REFUSES_SYSTEM, {}), (DATED, {"loud": True})],
    ids=["none", "refuses system", "has date and arguments"],
)
def test_the_exported_chat_template_renders_as_the_run_did(
    template: str | None, arguments: dict[str, bool], tmp_path: Path, runs: dict[str, Path]
) -> None:
    """Of a base without a template, of one that takes no system text, of one that has a date."""
    from transformers import AutoTokenizer

    from fastslow.results.deploy import export as exporting

    other = save_tiny(tmp_path / "base")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    (other / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(other)
    run = without_seal(shutil.copytree(runs["texts alone"], tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["model"] |= {"name": str(other), "chat_template_kwargs": arguments}
    (run / "config.json").write_text(json.dumps(config))
    card = json.loads((run / "run.json").read_text())
    day = date.fromisoformat(card["date"]) - timedelta(days=40)
    (run / "run.json").write_text(json.dumps(card | {"date": day.isoformat()}))
    (tmp_path / "out").mkdir()
    loaded = load_resolved(run / "config.json")
    _, settings = write_tokenizer(exporting._read(run, loaded, None, False), tmp_path / "out")
    renderer = Renderer(AutoTokenizer.from_pretrained(other), arguments, day)
    exported = AutoTokenizer.from_pretrained(tmp_path / "out")
    for program in (text_for("first"), PromptProgram("Only system."), PromptProgram("")):
        chat = chat_messages(program, "q?")
        ids = exported.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        assert tuple(ids) == renderer.prompt_ids(program, "q?")
    assert renderer.stop_id in settings.eos_token_id


def test_an_adapter_folder_holds_what_peft_and_vllm_take_and_nothing_else(
    runs: dict[str, Path], exports: dict[str, Path]
) -> None:
    # merging leaves both stages' ranks under those that the next stage would have trained
    ranks = {"merge-then-new": 16, "new-per-stage": 8, "first stage": 8, "merging": 24}
    for kind, rank in ranks.items():
        standing = read_standing(run_of(runs, kind), 1 if kind == "first stage" else 2)
        kept = read_kept(standing.folder)
        for task in standing.trained:
            prompt = json.loads((exports[kind] / f"prompts/{task.task}.json").read_text())
            folder = exports[kind] / prompt["adapter"]
            assert fingerprint_of_file(folder / WEIGHTS_FILE) == kept.weights_of(task.task)
            config = json.loads((folder / "adapter_config.json").read_text())
            assert config["r"] == rank
            assert (config["bias"], config["modules_to_save"]) == ("none", None)
            assert (config["use_dora"], config["use_rslora"]) == (False, False)
            assert isinstance(config["lora_alpha"], int)
            assert Path(config["base_model_name_or_path"]).is_dir()
            with safe_tensors(folder / WEIGHTS_FILE) as names:
                assert all(re.search(r"\.lora_[AB]\.weight$", name) for name in names)
        if kind == "new-per-stage":
            assert {p.name for p in (exports[kind] / "adapters/first").iterdir()} == PEFT_FILES
        assert not list(exports[kind].rglob("*.pkl"))
        assert not (exports[kind] / "adapter_parts.json").exists()


@contextlib.contextmanager
def safe_tensors(path: Path) -> Iterator[list[str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        yield list(file.keys())


VLLM_NAMES = {
    "LLM": {"tokenizer", "generation_config", "enable_lora", "max_lora_rank"},
    "SamplingParams": {"temperature", "max_tokens", "stop_token_ids"},
    "chat": {"lora_request"},
    "LoRARequest": set(),
}
"""Documented names: vllm.LLM and its engine arguments, SamplingParams, LLM.chat, LoRARequest."""


def test_the_lines_for_vllm_are_python_and_use_documented_names_alone(
    exports: dict[str, Path],
) -> None:
    """vLLM is not installed: this is all that is tested of them."""
    for kind, folder in exports.items():
        code = next(one for one in snippets(folder) if "vllm" in one)
        assert len(code.splitlines()) <= 10
        calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
        used = {}
        for call in calls:
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name in VLLM_NAMES:
                used[name] = {word.arg for word in call.keywords}
                assert used[name] <= VLLM_NAMES[name], (kind, name)
        has_adapter = kind not in ("merged", "texts alone")
        assert {"LLM", "SamplingParams", "chat"} <= used.keys()
        assert ("LoRARequest" in used) == has_adapter
        rank = re.search(r"max_lora_rank=(\d+)", code)
        expected = {"merge-then-new": "16", "merging": "32"}.get(kind, "8" if has_adapter else None)
        assert (rank and rank[1]) == expected
        (serve,) = snippets(folder, "bash")
        assert ("--lora-modules" in serve) == has_adapter


def test_a_merged_model_computes_what_the_adapter_did(
    runs: dict[str, Path], exports: dict[str, Path], base: Path
) -> None:
    from peft import PeftModel

    ids = torch.arange(40).view(2, 20)
    merged = load_policy(str(exports["merged"])).model
    plain = load_policy(str(base)).model
    attached = PeftModel.from_pretrained(load_policy(str(base)).model, exports["merge-then-new"])
    with torch.no_grad():
        one, other, before = (model(ids).logits for model in (merged, attached, plain))
    torch.testing.assert_close(one, other, atol=1e-5 * float(before.abs().max()), rtol=0)
    assert (one - before).abs().max() > 1e-2


def test_the_index_names_every_file_and_where_it_comes_from(
    runs: dict[str, Path], exports: dict[str, Path]
) -> None:
    for kind, folder in exports.items():
        index = json.loads((folder / "export.json").read_text())
        files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert files == {*index["files"], "export.json"}
        standing = read_standing(run_of(runs, kind), index["stage"])
        for task in standing.trained:
            assert index["tasks"][task.task]["weights"] == task.weights
            assert index["tasks"][task.task]["text_hash"] == task.text


def test_what_is_exported_is_what_is_deployed(runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["merge-then-new"], tmp_path / "run")
    assert main(["rollback", str(run), "--to", "1"]) == 0
    assert main(["export", str(run)]) == 0
    folder = run / "export" / "000-first"
    assert fingerprint_of_file(folder / WEIGHTS_FILE) == read_standing(run, 1).tasks[0].weights
    assert [path.name for path in (folder / "prompts").iterdir()] == ["first.json"]


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(said: str, *words: str) -> None:
        assert main(["export", "--trust", str(run), "--out", str(out), *words]) == 2
        assert said in capsys.readouterr().err
        assert not out.parent.exists() or list(out.parent.iterdir()) in ([], [out])

    run = without_seal(shutil.copytree(runs["new-per-stage"], tmp_path / "run"))
    out = tmp_path / "to" / "out"
    refused("the tasks of this run have adapters of their own", "--merge")
    refused("there is no stage 3. Known: 1 to 2", "--stage", "3")
    card = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**card, "state": "interrupted"}))
    refused("Name a complete one with --stage")
    (run / "run.json").write_text(json.dumps(card))
    shutil.copytree(read_standing(run).folder, run / "stages/001-../../../escaped")
    other = json.dumps(card).replace('"second"', '"../../../escaped"')
    rows = (run / "scores.jsonl").read_text()
    (run / "scores.jsonl").write_text(rows.replace('"second"', '"../../../escaped"'))
    (run / "run.json").write_text(other)
    refused("'../../../escaped' is not a plain name")
    (run / "run.json").write_text(json.dumps(card))
    (run / "scores.jsonl").write_text(rows)
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace(json.loads(config)["model"]["name"], "/gone"))
    refused("there is no model called '/gone'")
    (run / "config.json").write_text(config)
    scores = run / "scores.jsonl"
    rows = scores.read_text()
    scores.write_text(rows.replace("letters@1", "letters@0"))
    refused("is not what was scored any more, got letters@1")
    scores.write_text(rows)
    out.mkdir(parents=True)
    refused("exists already, and an export overwrites nothing")
    out.rmdir()
    (read_standing(run).folder / WEIGHTS_FILE).write_bytes(b"")
    refused("the adapter cannot be read")
