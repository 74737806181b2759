"""What every section shares: its records, models built in code, rows, references and clocks."""

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.adapter.lora import attach_lora
from fastslow.policy.adapter.parts import trainable_weights
from fastslow.policy.engine.torch_engine import TorchEngine

Shape: TypeAlias = tuple[int, int, int, int, int]
"""Tokens of a prompt, problems, rollouts of each, tokens of a question and of an answer."""

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        **{"family": "qwen2", "vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256},
        **{"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2},
    },
    "135m": {
        **{"family": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536},
        **{"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
    },
    "0.5b": {
        **{"family": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864},
        **{"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2},
    },
}
"""Shapes of models, whose weights are random: ours, SmolLM2-135M's and Qwen2.5-0.5B's."""


@dataclass(frozen=True)
class Section:
    """Where one section runs, until when, and the file that its records go to."""

    name: str
    device: str
    is_tiny: bool
    """Small models and shapes, to try the script on a CPU."""
    folder: Path
    deadline: float
    """On `time.monotonic`."""
    vllm_python: str | None = None

    @property
    def on_card(self) -> bool:
        """Whether it measures a card."""
        return self.device.startswith("cuda")

    @property
    def is_late(self) -> bool:
        """Whether nothing long should be begun any more."""
        return time.monotonic() > self.deadline

    def check(self, what: str, holds: bool, words: str, **figures: Any) -> None:
        """Say whether something holds that must."""
        self._say("PASS" if holds else "FAIL", what, words, figures)

    def note(self, what: str, words: str, **figures: Any) -> None:
        """Say what was measured."""
        self._say("INFO", what, words, figures)

    def _say(
        self, kind: Literal["PASS", "FAIL", "INFO"], what: str, words: str, figures: Any
    ) -> None:
        name = f"{self.name}/{what}"
        print(f"{kind} {name}: {words}", flush=True)
        record = {"kind": kind, "name": name, "words": words, **figures}
        with (self.folder / f"{self.name}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def synchronize(self) -> None:
        """Wait for the card."""
        if self.on_card:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], repeats: int = 5, patience: float = 6.0) -> float:
        """Median of some runs after one that warms up; fewer where one takes long."""
        work()
        times: list[float] = []
        until = time.monotonic() + patience
        while len(times) < repeats and (not times or time.monotonic() < until):
            self.synchronize()
            started = time.perf_counter()
            work()
            self.synchronize()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def peak_mib(self, work: Callable[[], Any]) -> int | None:
        """What the work takes on the card above what is in use; None on a CPU."""
        if not self.on_card:
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20)


class Words:
    """Stands for the renderer, of which the engine needs no more than this."""

    stop_id = 2
    tokenizer = SimpleNamespace(eos_token_id=2)

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids, written out."""
        return " ".join(map(str, ids))


def engine_of(model: Any) -> TorchEngine:
    """The engine over a model that has no tokenizer."""
    words: Any = Words()
    return TorchEngine(model, words)


def build(size: str, dtype: str, device: str, seed: int = 0) -> Any:
    """A random model, peaked as trained ones are, with an adapter that has an effect.

    Drawn on the CPU, so that it is the same on every device.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(SIZES[size])
    config = AutoConfig.for_model(
        shape.pop("family"),
        **shape,
        max_position_embeddings=8192,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4.0)
    model = model.to(getattr(torch, dtype)).to(device).eval()
    model.requires_grad_(False)
    model = attach_lora(model, rank=8, alpha=16, target_modules="all-linear", seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, weight in trainable_weights(model).items():
            if ".lora_B." in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model


def rows_of(
    shape: Shape, vocab: int, *, prompts: int = 1, ragged: bool = False, seed: int = 0
) -> tuple[list[TokenIds], list[TokenIds]]:
    """Prompts and completions; ragged, everything but the prompts' number has many lengths."""
    text, problems, rollouts, question, answer = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> TokenIds:
        if ragged and count > 1:
            count -= int(torch.randint(0, count // 2 + 1, (1,), generator=generator))
        return tuple(torch.randint(5, vocab - 5, (count,), generator=generator).tolist())

    trunks = [draw(text) for _ in range(prompts)]
    questions = [draw(question) for _ in range(problems)]
    rows = [trunks[r % prompts] + q for q in questions for r in range(rollouts)]
    return rows, [draw(answer) for _ in rows]


def weights_of(rows: int) -> list[float]:
    """A weight for each row, positive and negative, as advantages are."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(rows, generator=generator).tolist()


def loss_of(logprobs: Iterable[Tensor]) -> Tensor:
    """The weighted sum of rows of log-probabilities, per row."""
    rows = list(logprobs)
    summands = (w * row.sum() for w, row in zip(weights_of(len(rows)), rows, strict=True))
    return torch.stack(list(summands)).sum() / len(rows)


def trainable(model: Any) -> list[Tensor]:
    """The adapter's weights."""
    return list(trainable_weights(model).values())


def gradient(model: Any) -> Tensor:
    """The adapter's gradient as it stands, flat, in float64 on the CPU."""
    grads = [w.grad for w in trainable(model)]
    return torch.cat([g.detach().flatten().double().cpu() for g in grads if g is not None])


def digest(tensors: Iterable[Tensor]) -> str:
    """Of every bit."""
    total = hashlib.sha256()
    for tensor in tensors:
        data = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
        total.update(data.tobytes())
    return total.hexdigest()[:12]


def padded_batch(
    prompts: Sequence[TokenIds], completions: Sequence[TokenIds], device: str
) -> tuple[Tensor, Tensor, int]:
    """Ids and mask as TRL has them, prompts padded on the left, and the completions' width."""
    before, after = max(map(len, prompts)), max(map(len, completions))
    ids = torch.zeros(len(prompts), before + after, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        place = slice(before - len(prompt), before + len(completion))
        ids[row, place] = torch.tensor(prompt + completion)
        mask[row, place] = 1
    return ids.to(device), mask.to(device), after


def stock_logprobs(model: Any, ids: Tensor, mask: Tensor, keep: int) -> Tensor:
    """What a plain trainer computes: padded rows, all logits of the completions, log-softmax."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=keep + 1,
    ).logits[:, :-1]
    targets = ids[:, -keep:, None]
    logprobs: Tensor = torch.log_softmax(logits.float(), -1).gather(-1, targets)[..., 0]
    return logprobs
