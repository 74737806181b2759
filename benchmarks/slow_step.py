"""Forward and backward of a fast-slow batch, ours against stock TRL, on one machine in one run.

    python -m benchmarks.slow_step                          # every shape, on the default model
    python -m benchmarks.slow_step --shapes 280,4,8,55,6 --json out.json
    python -m benchmarks.slow_step --skip-stock             # ours alone: minutes, not an hour

A shape is text, problems, rollouts per problem, question and answer, in tokens. Both sides get the
same model, rows and loss, and take turns; ratios are medians over the turns. Stock is TRL's own
log-prob function (and `generate` for the whole step) in the largest micro-batch that fits. On a CPU
stock's fused head scores every position, prompts too: a part of our lead is that. Peak memory is
that of a process of its own for each side, above what the loaded model takes.
"""

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from benchmarks.figures import write_figures
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.remedies.base import Stage, Update
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.trainer import finish_update
from fastslow.core.prompts import Candidate, PromptProgram
from fastslow.core.types import Batch, Example, Grade, TokenIds
from fastslow.policy import model_store
from fastslow.policy.engine.layouts import cheapest, score_completions
from fastslow.policy.policy import Policy, load_policy, with_adapter
from fastslow.task.definition import Task

Shape: TypeAlias = tuple[int, int, int, int, int]
SHAPES: tuple[Shape, ...] = (
    (280, 4, 8, 55, 6),
    (1000, 4, 8, 60, 16),
    (60, 4, 8, 25, 64),
    (10, 4, 4, 40, 128),
)
MEMORY_SHARE = 0.5
"""Share of the free memory that stock's micro-batch may take; the rest is for what varies."""
WHOLE_STEP: Shape = (280, 4, 8, 55, 6)


@dataclass(frozen=True)
class Row:
    """What one shape gave."""

    shape: Shape
    speedup: float
    """Stock's time over ours, median of the turns."""
    memory_ratio: float | None
    """Our peak memory over stock's, both above that of the loaded model; None if not measurable."""
    gradient_error: float
    """Norm of the difference of the adapters' gradients over the norm of stock's."""
    layout: str
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


GEMM_SIZE = 2048
GEMM_REPEATS = 10


def gemm() -> None:
    """Large float32 matrix products, whose rate is what the machine can do."""
    a = torch.randn(GEMM_SIZE, GEMM_SIZE)
    for _ in range(GEMM_REPEATS):
        torch.mm(a, a)


GEMM_OPERATIONS = 2.0 * GEMM_SIZE**3 * GEMM_REPEATS


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


def release_memory() -> None:
    """Give back what the allocator keeps, so that the next shape has it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def reset_peak() -> float | None:
    """Start measuring the peak again; returns the memory in use now."""
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

    def take(self) -> None:
        """Run once; keep the time."""
        started = time.perf_counter()
        self.run()
        self.seconds.append(time.perf_counter() - started)


def take_turns(sides: Sequence[Turn], repeats: int) -> None:
    """Alternate, so that a slow moment of the machine meets all sides. Each has run before."""
    for _ in range(repeats):
        for side in sides:
            side.take()


def ratio(above: Turn, below: Turn) -> float:
    """Median over the turns of one side's time over the other's."""
    pairs = zip(above.seconds, below.seconds, strict=True)
    return statistics.median(a / b for a, b in pairs)


def gradient(model: Any) -> torch.Tensor:
    """Gradient of the adapter as it stands, flat."""
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def rows_that_fit(shape: Shape, model_name: str) -> int:
    """Largest micro-batch of the stock side, from the memory that one row and three rows take."""
    rows = shape[1] * shape[2]
    one = peak_in_child("stock", shape, model_name, 1)
    three = peak_in_child("stock", shape, model_name, min(3, rows))
    if one is None or three is None or rows < 3:
        return rows
    if torch.cuda.is_available():
        free = float(torch.cuda.mem_get_info()[0])
    else:
        known = Path("/proc/meminfo").read_text().split("MemAvailable:")[1]
        free = 1024.0 * int(known.split()[0])
    more = max(three - one, 1.0) / 2
    return max(1, min(rows, 1 + int((MEMORY_SHARE * free - one) / more)))


@dataclass(frozen=True)
class Sides:
    """Forward and backward of one shape, ours and stock's, over the same adapter."""

    ours: Callable[[], None]
    stock: Callable[[], None]


def sides_of(policy: Policy, trainer: Any, shape: Shape, stock_rows: int) -> Sides:
    """Both sides, ready to run; the same loss, a weighted mean of all log-probabilities."""
    model = policy.model
    prompts, completions = rows_of(shape, model.config.vocab_size)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(len(prompts), 1, generator=generator)
    ids = torch.tensor([p + c for p, c in zip(prompts, completions, strict=True)])
    answer = shape[-1]

    def ours() -> None:
        model.zero_grad()
        scored = score_completions(model, prompts, completions)
        torch.autograd.backward(-(scored.logprobs * weights).mean())

    def stock_pass(rows: slice) -> None:
        part = ids[rows]
        scored = trainer._get_per_token_logps_and_entropies(
            model, part, torch.ones_like(part), answer, compute_entropy=True
        )
        torch.autograd.backward(-(scored[0] * weights[rows]).sum() / (len(ids) * answer))

    def stock() -> None:
        model.zero_grad()
        for start in range(0, len(ids), stock_rows):
            stock_pass(slice(start, start + stock_rows))

    return Sides(ours, stock)


def measure(policy: Policy, trainer: Any, shape: Shape, repeats: int, model_name: str) -> Row:
    """One shape: forward and backward, ours and stock's."""
    model = policy.model
    stock_rows = rows_that_fit(shape, model_name)
    sides = sides_of(policy, trainer, shape, stock_rows)
    gradients: dict[str, torch.Tensor] = {}

    def keeping(name: str, run: Callable[[], None]) -> Turn:
        def run_and_keep() -> None:
            run()
            gradients[name] = gradient(model)

        return Turn(run_and_keep, [])

    ours, stock = keeping("ours", sides.ours), keeping("stock", sides.stock)
    sides.ours()  # the first of everything is slower
    take_turns([ours, stock], repeats)
    error = (gradients["ours"] - gradients["stock"]).norm() / gradients["stock"].norm()
    memory = [peak_in_child(side, shape, model_name, stock_rows) for side in SIDES]
    prompts, completions = rows_of(shape, model.config.vocab_size)
    return Row(
        shape,
        round(ratio(stock, ours), 2),
        round(memory[0] / memory[1], 3) if memory[0] and memory[1] else None,
        float(f"{error.item():.2g}"),
        cheapest(model, prompts, completions),
        stock_rows,
        round(statistics.median(ours.seconds), 3),
    )


@dataclass(frozen=True)
class PeakRow:
    """What one shape gave without stock."""

    shape: Shape
    layout: str
    peak_share: float
    """Operations over the unique tokens per second, as a share of the GEMM peak taken in the same
    turn; median."""
    products_share: float
    """Time of the frozen layers' products alone, at the same sizes and in the same turn, as a share
    of ours; median."""
    operators: dict[str, float]
    """Share of ours that each of torch's operators takes by itself, the largest first."""
    seconds: float
    """Ours, median."""


NUM_OPERATORS = 8


def products(model: Any, shape: Shape) -> Callable[[], None]:
    """The products of the frozen layers with every distinct token, forward and backward.

    What an update would take if the adapter, attention and all between the layers were free.
    """
    text, problems, rollouts, question, answer = shape
    tokens = text + problems * question + problems * rollouts * (answer - 1)
    scored = problems + problems * rollouts * (answer - 1)
    head = model.get_output_embeddings().weight
    weights = [(module.base_layer.weight, tokens) for module in adapted(model)] + [(head, scored)]
    inputs = {(w.shape[1], rows): torch.randn(rows, w.shape[1]) for w, rows in weights}
    gradients = {(w.shape[0], rows): torch.randn(rows, w.shape[0]) for w, rows in weights}

    @torch.no_grad()
    def run() -> None:
        for weight, rows in weights:
            torch.nn.functional.linear(inputs[weight.shape[1], rows], weight)
            torch.mm(gradients[weight.shape[0], rows], weight)

    return run


def adapted(model: Any) -> list[Any]:
    """The layers that carry the adapter."""
    return [module for module in model.modules() if hasattr(module, "lora_A")]


def operator_shares(run: Callable[[], None]) -> dict[str, float]:
    """Share of the time that the operators which take most of it take by themselves."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    largest = sorted(times, key=lambda name: times[name], reverse=True)[:NUM_OPERATORS]
    return {name: round(times[name] / sum(times.values()), 3) for name in largest}


def measure_peak(policy: Policy, shape: Shape, repeats: int) -> PeakRow:
    """One shape: forward and backward, ours next to large matrix products."""
    model = policy.model
    prompts, completions = rows_of(shape, model.config.vocab_size)

    def run() -> None:
        model.zero_grad()
        torch.autograd.backward(score_completions(model, prompts, completions).logprobs.sum())

    ours, peak, floor = Turn(run, []), Turn(gemm, []), Turn(products(model, shape), [])
    gemm()  # the first of everything is slower
    run()
    take_turns([peak, ours, floor], repeats)
    share = operations(model, shape) / GEMM_OPERATIONS * ratio(peak, ours)
    seconds = statistics.median(ours.seconds)
    layout = cheapest(model, prompts, completions)
    return PeakRow(
        shape,
        layout,
        round(share, 3),
        round(ratio(floor, ours), 3),
        operator_shares(run),
        round(seconds, 3),
    )


SIDES = ("ours", "stock")


def peak_in_child(side: str, shape: Shape, model_name: str, stock_rows: int) -> float | None:
    """Peak memory of one side in a fresh process, above the loaded model's, in bytes."""
    numbers = ",".join(map(str, shape))
    options = ["--shapes", numbers, "--model", model_name, "--peak-of", side]
    command = [sys.executable, "-m", "benchmarks.slow_step", *options]
    if side == "stock":
        command += ["--stock-rows", str(stock_rows)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak: float | None = json.loads(output.splitlines()[-1])
    return peak


def peak_of(policy: Policy, trainer: Any, side: str, shape: Shape, rows: int) -> float | None:
    """Peak memory of the first pass of one side in this process, above what was in use."""
    model = policy.model
    start = reset_peak()
    if side == "ours":
        prompts, completions = rows_of(shape, model.config.vocab_size)
        torch.autograd.backward(score_completions(model, prompts, completions).logprobs.sum())
    else:
        prompts, completions = rows_of(shape, model.config.vocab_size)
        part = torch.tensor([p + c for p, c in zip(prompts, completions, strict=True)])[:rows]
        scored = trainer._get_per_token_logps_and_entropies(
            model, part, torch.ones_like(part), shape[-1], compute_entropy=True
        )
        torch.autograd.backward(scored[0].sum())
    end = peak_memory()
    return None if start is None or end is None else end - start


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
    settings = GrpoConfig(group=rollouts, rows_per_forward=4096)
    trainer = FastSlowTrainer(policy, {task.name: task}, problems, settings)
    optimizer = torch.optim.SGD(policy.adapters.trainable().values(), lr=0.0)
    batch = Batch(tuple((task.name, example) for example in examples))
    policy.populations[task.name] = (Candidate(program, {}),)
    update = Update(Stage(policy, task, 0, (), seed=0), batch, 0, 0, 0.0, trainer.scored_rows)
    finish = partial(finish_update, settings.max_grad_norm, optimizer, Remedies(), update)
    ours = Turn(lambda: _ignore(trainer.update(batch, 1, finish)), [])

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
    theirs = Turn(stock_step, [])
    take_turns([ours, theirs], repeats)
    return ratio(theirs, ours)


def _ignore(value: object) -> None:
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the shapes, print a table, write JSON if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--json", type=Path, help="where to write the figures; other shapes in it stay"
    )
    parser.add_argument("--shapes", nargs="*", help="text,problems,rollouts,question,answer")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="as model.name")
    parser.add_argument("--skip-whole-step", action="store_true", help="forward and backward only")
    parser.add_argument("--skip-stock", action="store_true", help="ours and the GEMM peak only")
    parser.add_argument("--peak-of", choices=SIDES, help="print one side's peak memory in bytes")
    parser.add_argument("--stock-rows", type=int, default=1, help="micro-batch for --peak-of stock")
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
    if options.peak_of:
        print(peak_of(policy, trainer, options.peak_of, shapes[0], options.stock_rows) or "null")
        return
    found: list[dict[str, Any]] = []
    whole: float | None = None
    for shape in shapes:
        row: Row | PeakRow
        if options.skip_stock:
            row = measure_peak(policy, shape, options.repeats)
        else:
            row = measure(policy, trainer, shape, options.repeats, options.model)
        found.append(asdict(row))
        print(row, flush=True)
        release_memory()
    if not (options.skip_whole_step or options.skip_stock):
        whole = round(whole_step(policy, WHOLE_STEP, max(2, options.repeats // 2)), 2)
        print({"shape": WHOLE_STEP, "whole_step_speedup": whole})
    if options.json:
        kept = json.loads(options.json.read_text()) if options.json.is_file() else {}
        measured = [row["shape"] for row in found]
        others = [
            {"command": kept["command"]} | row
            for row in kept.get("shapes", [])
            if tuple(row["shape"]) not in measured
        ]
        figures = {"shapes": others + found, "whole_step": whole or kept.get("whole_step")}
        write_figures(options.json, figures, "slow_step", arguments)


def _shape(text: str) -> Shape:
    numbers = tuple(int(part) for part in text.split(","))
    if len(numbers) != 5 or min(numbers) < 1:
        raise SystemExit(f"--shapes: got {text!r}. Expected five numbers, e.g. 280,4,8,55,6.")
    return numbers


if __name__ == "__main__":
    main()
