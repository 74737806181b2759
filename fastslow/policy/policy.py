"""The policy: whatever produces completions. Base weights, adapter, and the texts of each task.

The only owner of a torch model. Channels change it in place; the evaluator must not.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fastslow.core.decode import shaped
from fastslow.core.errors import ModelError
from fastslow.core.files import read_json
from fastslow.core.prompts import BARE, Candidate, Population, PromptProgram
from fastslow.core.text import shorten
from fastslow.core.types import Completion, Example, Sampling, TokenIds
from fastslow.policy.activations import Activations, next_token_logprobs, record_activations
from fastslow.policy.adapter.by_stage import StageAdapters
from fastslow.policy.adapter.lora import (
    adapter_fingerprint,
    attach_lora,
    load_adapter,
    save_adapter,
)
from fastslow.policy.engine.head import evaluating
from fastslow.policy.engine.interface import Sampler, Scorer
from fastslow.policy.engine.layouts import Predictions, predict, score_completions
from fastslow.policy.engine.shards import shard
from fastslow.policy.engine.sharing import why_not_shared, why_unusable
from fastslow.policy.engine.torch_engine import TorchEngine
from fastslow.policy.feed_forward import FeedForward
from fastslow.policy.model_store import hub_unreachable
from fastslow.policy.readings import Problem, read_prompts
from fastslow.policy.render import Renderer
from fastslow.policy.saved import ROUTER_FILE, TEXTS_FILE
from fastslow.policy.signals import Reading
from fastslow.policy.tensors import load_tensors
from fastslow.policy.token_lengths import context_length
from fastslow.task.definition import Task

QUESTIONS_AT_ONCE = 48
"""Bare questions of one pass."""


class Policy:
    """Base weights + adapter + prompt populations.

    The model is a transformers causal language model, with a PEFT adapter if weights may change.
    Without a sampler it draws the completions itself.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampler: Sampler | None = None,
        renderer: Renderer | None = None,
    ) -> None:
        self.model = model
        """For `fastslow/policy/` only: what others need of it is a method here or of `adapters`."""
        self.tokenizer = tokenizer
        self.renderer = renderer or Renderer(tokenizer)
        engine = TorchEngine(model, self.renderer)
        self.scorer: Scorer = engine
        self.sampler: Sampler = engine if sampler is None else sampler
        self.adapters = StageAdapters(model)
        self.feed_forward = FeedForward(model)
        self.populations: dict[str, Population] = {}
        """Task name to its texts, best first; a task not visited yet has none."""
        self.live: dict[str, PromptProgram] = {}
        """Task name to the text that would be deployed for it now."""
        self.question_means: dict[str, Float[Tensor, " hidden"]] = {}
        """Task name to the mean of `question_states` over training questions: what an unlabelled
        question is routed by. Empty unless a router reads them."""

    @property
    def module(self) -> Any:
        """The torch module itself, for trainers of other libraries, which take one."""
        return self.model

    @property
    def device(self) -> str:
        """Where the weights are, e.g. `cpu` or `cuda:0`."""
        return str(self.model.device)

    @property
    def dtype(self) -> str:
        """Number format of the base's weights, e.g. `float32`."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def context_length(self) -> int | None:
        """Most tokens of prompt and completion together; see `token_lengths.context_length`."""
        return context_length(self.model.config.to_dict())

    def shard(self, device: str) -> None:
        """Keep but a share of the base here, on `device`; see `shards.py`. Before any adapter."""
        why_not_shared(self.model)  # proven while all weights are here
        shard(self.model, device)

    def population(self, task: Task) -> Population:
        """The task's texts, best first; its seed text alone before any fast phase."""
        return self.populations.get(task.name) or (Candidate(seed_program(task), {}),)

    def live_program(self, task: Task) -> PromptProgram:
        """The text that would be deployed for `task` now; its seed text if none was chosen."""
        return self.live.get(task.name) or seed_program(task)

    def complete(
        self,
        requests: Sequence[tuple[PromptProgram, Example]],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        adapter: bool = True,
    ) -> list[Completion]:
        """One completion per (text, example), in order; see `Sampler.sample`."""
        prompts = [self.renderer.prompt_ids(text, example.question) for text, example in requests]
        return self.sampler.sample(prompts, sampling, seeds, adapter=adapter)

    def completion_logprobs(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> Float[Tensor, "rows tokens"]:
        """Log-probability of each completion token in nats, 0 on padding; carries a gradient.

        Differentiable in the trainable weights; `scorer.logprobs` gives the numbers alone.
        """
        with evaluating(self.model):
            return score_completions(self.model, prompts, completions).logprobs

    def predict(self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]) -> Predictions:
        """States before every completion token; differentiable in the trainable weights."""
        with evaluating(self.model):
            return predict(self.model, prompts, completions)

    @contextmanager
    def as_of(
        self, weights: Literal["base", "start", "present"] | Mapping[str, Tensor]
    ) -> Iterator[None]:
        """Within it the policy computes with other weights than the present ones.

        Those of the base, or of the start of the stage, which was to be kept, or with these
        trainable ones. Not under a graph that is still to be differentiated.
        """
        if weights == "base":
            context: AbstractContextManager[None] = self.scorer.base_weights()
        elif weights == "present":
            context = nullcontext()
        else:
            chosen = self.adapters.start if weights == "start" else weights
            assert isinstance(chosen, Mapping), "the stage began without keeping its start"
            context = self.adapters.holding(chosen)
        with context:
            yield

    def read_prompts(self, program: PromptProgram, examples: Sequence[Example]) -> list[Reading]:
        """What a pass over each problem says of its difficulty; see `Reading`. Draws nothing."""
        problems = []
        for example in examples:
            before, question = self.renderer.question_ids(example.question, program)
            prompt = self.renderer.prompt_ids(program, example.question)
            span = slice(len(before), len(before) + len(question))
            answer = self.renderer.answer_ids(example.answer)
            problems.append(Problem(example.id, prompt, span, answer))
        return read_prompts(self.model, problems)

    def question_states(self, questions: Sequence[str]) -> Float[Tensor, "questions hidden"]:
        """The base's state at the end of each question alone, with no prompt and no adapter.

        Last layer, last token before an answer, after the final norm, float32 on the CPU.
        """
        prompts = [self.renderer.prompt_ids(BARE, question) for question in questions]
        starts = range(0, len(prompts), QUESTIONS_AT_ONCE)
        passes = (
            self.activations(prompts[start : start + QUESTIONS_AT_ONCE], adapter=False)
            for start in starts
        )
        return torch.stack([states[-1] for each in passes for states in each.features])

    def question_logprobs(self, questions: Sequence[str]) -> list[float]:
        """Mean log-probability of each question's tokens, in nats, with no prompt before it."""
        pairs = [self.renderer.question_ids(question) for question in questions]
        logprobs: list[float] = []
        for start in range(0, len(pairs), QUESTIONS_AT_ONCE):
            openings, bodies = zip(*pairs[start : start + QUESTIONS_AT_ONCE], strict=True)
            logprobs += map(fmean, self.scorer.logprobs(openings, bodies))
        return logprobs

    def activations(self, rows: Sequence[TokenIds], *, adapter: bool = True) -> Activations:
        """What the units of the feed-forward blocks do on `rows`; see `record_activations`."""
        with nullcontext() if adapter else self.scorer.base_weights():
            return record_activations(self.model, rows)

    def next_token_logprobs(
        self, rows: Sequence[TokenIds], recorded: Activations, *, adapter: bool = True
    ) -> list[tuple[float, ...]]:
        """Log-probability of each token but the first of each row, in nats.

        Read off the features in `recorded`, which `activations` gave for these rows and this
        `adapter`; a model whose head is more than one layer takes another pass.
        """
        logprobs = next_token_logprobs(self.model, rows, recorded)
        if logprobs is None:
            first, rest = [row[:1] for row in rows], [row[1:] for row in rows]
            logprobs = self.scorer.logprobs(first, rest, adapter=adapter)
        return logprobs

    def weights_fingerprint(self) -> str:
        """Identity of the adapter's weights, bit by bit; "base" without one."""
        return adapter_fingerprint(self.model)

    def texts_fingerprint(self) -> str:
        """Identity of every text of every population."""
        texts = {
            name: [candidate.program.text_hash for candidate in population]
            for name, population in sorted(self.populations.items())
        }
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]

    def save(self, folder: Path) -> None:
        """Write adapter, texts and question means; the base stays where it is.

        Raises:
            CheckpointError: The saved adapter does not read back equal.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(self.model, folder)
        self.adapters.save(folder)
        texts = {
            "populations": {
                name: [asdict(candidate) for candidate in population]
                for name, population in sorted(self.populations.items())
            },
            "live": {name: asdict(program) for name, program in sorted(self.live.items())},
        }
        (folder / TEXTS_FILE).write_text(
            json.dumps(texts, indent=1, ensure_ascii=False), encoding="utf-8"
        )
        if self.question_means:
            save_file(self.question_means, folder / ROUTER_FILE)

    def load(self, folder: Path) -> None:
        """Take adapter, texts and question means from a folder that `save` wrote.

        Raises:
            CheckpointError: The adapter there is not this policy's.
        """
        self.adapters.load(folder)
        load_adapter(self.model, folder)
        has_means = (folder / ROUTER_FILE).is_file()
        self.question_means = load_tensors(folder / ROUTER_FILE) if has_means else {}
        texts = read_json(folder / TEXTS_FILE)
        self.populations = {
            name: tuple(shaped(Candidate, candidate) for candidate in population)
            for name, population in texts["populations"].items()
        }
        live = texts["live"].items()
        self.live = {name: shaped(PromptProgram, program) for name, program in live}


def seed_program(task: Task) -> PromptProgram:
    """The text a task starts from: its seed instruction, no demonstrations.

    Common indentation goes, as DSPy would store it, so that a text is the same in both places.
    """
    return PromptProgram(inspect.cleandoc(task.instruction))


def load_policy(
    path_or_id: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    template_arguments: Mapping[str, Any] | None = None,
    day: date | None = None,
) -> Policy:
    """Load a base model and its tokenizer, safetensors only, without running its code.

    From a local folder or a hub id, of which there may be a revision. The chat template is bound to
    `template_arguments` and `day`, see `Renderer`.

    Raises:
        ModelError: It cannot be found, reached or read; one line that says what to do.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from fastslow.policy.engine.onednn import allow_onednn

    disable_progress_bar()
    options = {"revision": revision, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path_or_id, **options)
        model, loading = AutoModelForCausalLM.from_pretrained(
            path_or_id,
            **options,
            use_safetensors=True,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
        )
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(f"{len(missing)} weights are not in the files, e.g. {missing[0]}.")
    except Exception as err:  # files that transformers did not write make it raise anything
        if not Path(path_or_id).is_dir() and isinstance(err, OSError | ValueError):
            raise hub_unreachable(path_or_id, err) from err
        raise _unloadable(path_or_id, err) from err
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model.name: the tokenizer of {path_or_id!r} names no end-of-text token, so "
            "completions could not end. Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if device == "cpu" and dtype == "float32":
        allow_onednn()
    try:
        model.to(device).eval()
        model.requires_grad_(False)
        renderer = Renderer(tokenizer, template_arguments, day)
        renderer.answer_ids("answer")
        policy = Policy(model, tokenizer, renderer=renderer)
    except ModelError:
        raise
    except Exception as err:  # the model's own chat template and settings run here first
        raise _unloadable(path_or_id, err) from err
    if (reason := why_unusable(model)) is not None:
        raise ModelError(
            f"model.name: {path_or_id!r} ({model.config.model_type}) cannot be adapted: "
            f"{shorten(reason, 400)}. Use a causal language model of text; docs/models.md lists "
            "the families that are known to work."
        )
    return policy


def _unloadable(path_or_id: str, err: Exception) -> ModelError:
    first_line = shorten(next(iter(str(err).strip().splitlines()), ""), 300)
    return ModelError(
        f"model.name: cannot load {path_or_id!r}: {type(err).__name__}: {first_line} Give a folder "
        "with config.json, tokenizer files and *.safetensors, as model.save_pretrained writes it."
    )


def with_adapter(policy: Policy, **options: Any) -> Policy:
    """The same policy with a fresh LoRA adapter on its base; options are those of `attach_lora`."""
    model = attach_lora(policy.model, **options)
    return Policy(model, policy.tokenizer, renderer=policy.renderer)
