"""Forward and backward of a fast-slow batch, ours against stock TRL, on one machine in one run.

    python -m benchmarks.slow_step                          # every shape, on the default model
    python -m benchmarks.slow_step --shapes 280,4,8,55,6 --json out.json

A shape is text, problems, rollouts per problem, question and answer, in tokens. Both sides get the
same model, rows and loss, and take turns; ratios are medians over the turns. Stock is TRL's own
log-prob function (and `generate` for the whole step) in the largest micro-batch that fits. On a CPU
stock's fused head scores every position, prompts too: a part of our lead is that.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from fastslow import model_store
from fastslow.channels.trl_bridge import FastSlowTrainer, GrpoSettings
from fastslow.policy.layouts import cheapest, score_completions
from fastslow.policy.policy import Policy, load_policy, with_adapter
from fastslow.prompts import PromptProgram
from fastslow.task import Task
from fastslow.types import Batch, Example, Grade, TokenIds

Shape: TypeAlias = tuple[int, int, int, int, int]
SHAPES: tuple[Shape, ...] = (
    (280, 4, 8, 55, 6),
    (1000, 4, 8, 60, 16),
    (60, 4, 8, 25, 64),
    (10, 4, 4, 40, 128),
)
MEMORY_SHARE = 0.6
"""Share of the free memory that stock's micro-batch may take; the rest is for what varies."""
WHOLE_STEP: Shape = (280, 4, 8, 55, 6)


@dataclass(frozen=True)
class Row:
    """What one shape gave."""

    shape: Shape
    speedup: float
    """Stock's time over ours, median of the turns."""
    memory_ratio: float | None
    """Our peak memory over stock's, both above what was there before; None if not measurable."""
    gradient_error: float
    """Norm of the difference of the adapters' gradients over the norm of stock's."""
    layout: str
    peak_share: float
    """Operations over the unique tokens per second, as a share of the GEMM peak."""
    stock_rows: int
    """Rows of stock's micro-batch: the largest that fits."""
    seconds: float
    """Ours, median."""


def rows_of(shape: Shape, vocab: int) -> tuple[list[TokenIds], list[TokenIds]]:
    """Random prompts and completions of a shape: one text, Q questions, G answers each."""
    text, problems, rollouts, question, answer = shape
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> TokenIds:
        return tuple(torch.randint(5, vocab - 5, (count,), generator=generator).tolist())

    trunk = draw(text)
    prompts = [trunk + draw(question) for _ in range(problems)]
    return [p for p in prompts for _ in range(rollouts)], [
        draw(answer) for _ in range(problems * rollouts)
    ]


def gemm_peak(repeats: int = 8) -> float:
    """Operations per second of a large float32 matrix product: best of some."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2.0 * 2048**3 / best


def operations(model: Any, shape: Shape) -> float:
    """Operations of forward and backward over the unique tokens, frozen base.

    A frozen linear layer costs 2 operations per weight and token forward and as many backward; an
    attention score 4 x hidden forward and twice that backward. The head runs on answers only.
    """
    text, problems, rollouts, question, answer = shape
    config = model.config
    head = config.hidden_size * config.vocab_size
    total = sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n)
    body = total - head  # tied or not, one head's worth of weights is no linear layer of the body
    tokens = text + problems * question + problems * rollouts * (answer - 1)
    scored = problems + problems * rollouts * (answer - 1)
    pairs = text * text / 2 + problems * question * (text + question / 2)
    pairs += problems * rollouts * (answer - 1) * (text + question + answer / 2)
    attention = 4 * config.hidden_size * config.num_hidden_layers * pairs
    return float(4 * body * tokens + 4 * head * scored + 3 * attention)


def peak_memory() -> float | None:
    """Highest memory since `reset_peak`, in bytes; None where the system does not say."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return 1024.0 * int(status.split("VmHWM:")[1].split()[0])


def reset_peak() -> float | None:
    """Start measuring the peak anew; returns the memory in use now."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return peak_memory()


@dataclass
class Turn:
    """One side of a comparison."""

    run: Callable[[], None]
    seconds: list[float]
    memory: list[float]

    def take(self) -> None:
        """Run once; keep time and peak memory."""
        start = reset_peak()
        started = time.perf_counter()
        self.run()
        self.seconds.append(time.perf_counter() - started)
        end = peak_memory()
        if start is not None and end is not None:
            self.memory.append(end - start)


def take_turns(ours: Turn, stock: Turn, repeats: int) -> float:
    """Alternate; returns stock's time over ours, median. Both have run before."""
    for _ in range(repeats):
        ours.take()
        stock.take()
    return statistics.median(s / o for o, s in zip(ours.seconds, stock.seconds, strict=True))


def gradient(model: Any) -> torch.Tensor:
    """Gradient of the adapter as it stands, flat."""
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def rows_that_fit(turn: Callable[[int], None], rows: int) -> int:
    """Largest micro-batch of the stock side, from the memory that one row takes.

    Args:
        turn: Forward and backward of one micro-batch of so many rows.
        rows: Rows there are.
    """
    start = reset_peak()
    turn(1)
    end = peak_memory()
    if start is None or end is None:
        return rows
    if torch.cuda.is_available():
        free = float(torch.cuda.mem_get_info()[0])
    else:
        known = Path("/proc/meminfo").read_text().split("MemAvailable:")[1]
        free = 1024.0 * int(known.split()[0])
    return max(1, min(rows, int(MEMORY_SHARE * free / max(end - start, 1.0))))


def measure(policy: Policy, trainer: Any, shape: Shape, repeats: int, peak: float) -> Row:
    """One shape: forward and backward, ours and stock's."""
    model = policy.model
    prompts, completions = rows_of(shape, model.config.vocab_size)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(len(prompts), 1, generator=generator)
    ids = torch.tensor([p + c for p, c in zip(prompts, completions, strict=True)])
    answer = shape[-1]

    def our_turn() -> None:
        model.zero_grad()
        scored = score_completions(model, prompts, completions)
        torch.autograd.backward(-(scored.logprobs * weights).mean())

    def stock_pass(rows: slice) -> None:
        part = ids[rows]
        scored = trainer._get_per_token_logps_and_entropies(
            model, part, torch.ones_like(part), answer, compute_entropy=True
        )
        torch.autograd.backward(-(scored[0] * weights[rows]).sum() / (len(ids) * answer))

    fitting = rows_that_fit(lambda rows: stock_pass(slice(0, rows)), len(ids))

    def stock_turn() -> None:
        model.zero_grad()
        for start in range(0, len(ids), fitting):
            stock_pass(slice(start, start + fitting))

    ours, stock = Turn(our_turn, [], []), Turn(stock_turn, [], [])
    stock_turn()
    exact = gradient(model)
    our_turn()
    error = (gradient(model) - exact).norm() / exact.norm()
    speedup = take_turns(ours, stock, repeats)
    seconds = statistics.median(ours.seconds)
    memory = (
        statistics.median(ours.memory) / statistics.median(stock.memory) if stock.memory else None
    )
    return Row(
        shape,
        round(speedup, 2),
        None if memory is None else round(memory, 3),
        float(f"{error.item():.2g}"),
        cheapest(model, prompts, completions),
        round(operations(model, shape) / seconds / peak, 3),
        fitting,
        round(seconds, 3),
    )


def stock_trainer(
    policy: Policy, group: int, rows: int, max_tokens: int, rewards: Any, passes: int = 1
) -> Any:
    """TRL's own trainer over the same adapter; its reference is the adapter switched off."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        output_dir="unused",
        loss_type="cispo",
        epsilon_high=4.0,
        beta=0.0,
        num_generations=group,
        max_completion_length=max_tokens,
        per_device_train_batch_size=rows,
        steps_per_generation=passes,
        gradient_accumulation_steps=passes,
        use_cpu=policy.model.device.type == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=[rewards],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "x"}]),
        processing_class=policy.tokenizer,
    )
    trainer.beta = 0.001
    trainer.current_gradient_accumulation_steps = passes
    return trainer


def whole_step(policy: Policy, shape: Shape, repeats: int) -> float:
    """Sample, grade and learn, once: stock's time over ours, median."""
    text, problems, rollouts, question, answer = shape
    words = policy.tokenizer.decode(rows_of((text, 1, 1, question, 1), 40000)[0][0][:text])
    program = PromptProgram(words)
    examples = tuple(
        Example(str(i), policy.tokenizer.decode(prompt[-question:]), "x")
        for i, prompt in enumerate(rows_of((1, problems, 1, question, 1), 40000)[0])
    )

    def grade(example: Example, completion: str) -> Grade:
        return Grade(float(len(completion) % 2), "parity")

    task = Task(
        examples[:1], examples[1:2], examples[2:3], words, grade, answer, "bench", "bench@1"
    )
    settings = GrpoSettings("cispo", rollouts, 1e-6, 0, 0.0, 1.0, 4.0, 0.001, 1.0, 4096)
    trainer = FastSlowTrainer(policy, task, problems, settings)
    optimizer = torch.optim.SGD([p for p in policy.model.parameters() if p.requires_grad], lr=0.0)
    batch, slots = Batch(examples), [program] * rollouts
    ours = Turn(lambda: _ignore(trainer.update(batch, slots, optimizer, 1)), [], [])

    def rewards(completions: list[Any], **unused: Any) -> list[float]:
        return [float(len(c[0]["content"]) % 2) for c in completions]

    passes = problems  # a problem's group at a time keeps stock within memory
    stock = stock_trainer(policy, rollouts, rollouts, answer, rewards, passes)
    turns = [{"role": "system", "content": words}]
    rows = [
        {"prompt": [*turns, {"role": "user", "content": example.question}]}
        for example in examples
        for _ in range(rollouts)
    ]

    def stock_step() -> None:
        for _ in range(passes):
            stock.training_step(stock.model, rows, None)
        stock.model.zero_grad()

    stock_step()
    ours.run()
    return take_turns(ours, Turn(stock_step, [], []), repeats)


def _ignore(value: object) -> None:
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the shapes, print a table, write JSON if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--shapes", nargs="*", help="text,problems,rollouts,question,answer")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="as model.name")
    parser.add_argument("--skip-whole-step", action="store_true", help="forward and backward only")
    options = parser.parse_args(arguments)
    shapes = [_shape(text) for text in options.shapes] if options.shapes else list(SHAPES)
    policy = with_adapter(
        load_policy(model_store.resolve(options.model).path_or_id),
        rank=8,
        alpha=16,
        target_modules="all-linear",
        seed=0,
    )
    policy.model.train()
    trainer = stock_trainer(policy, 2, 2, 8, lambda completions, **unused: [0.0] * len(completions))
    peak = gemm_peak()
    found: list[dict[str, Any]] = []
    for shape in shapes:
        row = measure(policy, trainer, shape, options.repeats, peak)
        found.append(asdict(row))
        print(row, flush=True)
    if not options.skip_whole_step:
        ratio = round(whole_step(policy, WHOLE_STEP, max(2, options.repeats // 2)), 2)
        found.append({"shape": WHOLE_STEP, "whole_step_speedup": ratio})
        print(found[-1])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _shape(text: str) -> Shape:
    numbers = tuple(int(part) for part in text.split(","))
    if len(numbers) != 5 or min(numbers) < 1:
        raise SystemExit(f"--shapes: got {text!r}. Expected five numbers, e.g. 280,4,8,55,6.")
    return numbers


if __name__ == "__main__":
    main()
