"""The parts of docs/results.md about speed, from what the speed benchmarks wrote."""

import json
from typing import Any

from benchmarks.keeping import REFERENCE

SLOW_STEP, FAST_EVAL = REFERENCE / "slow_step.json", REFERENCE / "fast_eval.json"
"""What the speed benchmarks wrote with `--json`."""
GPU = REFERENCE / "gpu" / "gpu.json"
"""What `benchmarks.gpu` kept."""
PRODUCTS = REFERENCE / "products.json"
SLOW_STEP_PEAK = REFERENCE / "slow_step_peak.json"
"""What `benchmarks.slow_step --skip-stock` wrote."""


def speed_lines() -> list[str]:
    """Every speed benchmark of which there are figures."""
    lines = slow_step_lines() if SLOW_STEP.is_file() else []
    lines += peak_lines() if SLOW_STEP_PEAK.is_file() else []
    lines += fast_eval_lines() if FAST_EVAL.is_file() else []
    lines += gpu_lines() if GPU.is_file() else []
    return lines + (product_lines() if PRODUCTS.is_file() else [])


def slow_step_lines() -> list[str]:
    """Speed of the slow channel's update."""
    found = json.loads(SLOW_STEP.read_text())
    made = dict.fromkeys(row.get("command", found["command"]) for row in found["shapes"])
    lines = [
        "## Speed: one update of the slow channel against stock TRL",
        "",
        f"Made by {' and '.join(f'`{command}`' for command in made)}.",
        f"{made_on(found['environment'])} Medians of",
        "turns taken side by side; stock in the largest micro-batch that fits.",
        "",
        "| text, problems, rollouts, question, answer | times as fast | layout | seconds | stock's "
        "micro-batch | peak memory over stock's | gradient error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["shapes"]:
        memory = "not measured" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}"
        lines.append(
            f"| {', '.join(map(str, row['shape']))} | {row['speedup']:.1f} | {row['layout']} "
            f"| {row['seconds']:.1f} | {row['stock_rows']} | {memory} "
            f"| {row['gradient_error']:.1e} |"
        )
    if found["whole_step"] is not None:
        lines += [
            "",
            "A whole step (sample, grade, update) at 280, 4, 8, 55, 6 is "
            f"{found['whole_step']:.1f} times as fast as stock's.",
        ]
    return [*lines, ""]


def peak_lines() -> list[str]:
    """How near the slow channel's update is to what the machine can do."""
    found = json.loads(SLOW_STEP_PEAK.read_text())
    lines = [
        f"Ours alone, by `{found['command']}`: operations over the unique tokens, as a share of",
        "what large matrix products reach in the same turns. The frozen layers' products alone are",
        "the floor: what is left if the adapter, attention and all between the layers were free.",
        "",
        "| text, problems, rollouts, question, answer | seconds | share of the GEMM peak | "
        "the frozen layers' products alone | operators that take most, by themselves |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in found["shapes"]:
        operators = (f"{name} {share:.2f}" for name, share in row["operators"].items())
        lines.append(
            f"| {', '.join(map(str, row['shape']))} | {row['seconds']:.1f} "
            f"| {row['peak_share']:.2f} | {row['products_share']:.2f} | {', '.join(operators)} |"
        )
    return [*lines, ""]


def fast_eval_lines() -> list[str]:
    """Speed of the fast channel's scoring."""
    found = json.loads(FAST_EVAL.read_text())
    seconds = found["seconds"]
    lines = [
        "## Speed: scoring texts, against plain DSPy and against batching",
        "",
        f"Made by `{found['command']}`. {made_on(found['environment'])} "
        f"{found['programs']} texts of {min(found['text_tokens'])} to "
        f"{max(found['text_tokens'])} tokens on "
        f"{found['examples']} examples; scores "
        f"{'identical' if found['identical'] else 'NOT identical'} on all sides.",
        "",
        "| side | seconds | ours is so many times as fast |",
        "| --- | --- | --- |",
        f"| ours | {seconds['ours']:.1f} | |",
        f"| `generate` in padded batches of {found['batched_rows']} | {seconds['batched']:.1f} "
        f"| {found['vs_batched']:.1f} |",
        f"| `dspy.Evaluate`, one request at a time | {seconds['plain']:.1f} "
        f"| {found['vs_dspy']:.1f} |",
    ]
    return [*lines, ""]


def gpu_lines() -> list[str]:
    """What the script for a GPU found, failures by name."""
    found = json.loads(GPU.read_text())
    card, packages = found["environment"]["card"]["name"], found["environment"]["packages"]
    commit = found["environment"]["git"]["commit"][:7]
    failed = ", ".join(f"`{name}`" for name in found["failed"])
    lines = [
        "## On a GPU: is it right, repeatable and fast?",
        "",
        f"Made by `{found['command']}` at commit {commit} on one {card}, torch "
        f"{packages['torch']}, trl {packages['trl']}. {found['checks']} checks, "
        + (
            f"{len(found['failed'])} failed: {failed}. What was done since: log.md."
            if failed
            else "none failed."
        ),
        "",
        "| model, number format and shape of an update | ms | times as fast as TRL | layout "
        "| memory over TRL's | share of the card's peak |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["records"]:
        if "speedup" not in row:
            continue
        peak = "unknown" if row["mfu"] is None else f"{row['mfu']:.3f}"
        lines.append(
            f"| {row['name'].removeprefix('speed/')} | {row['seconds'] * 1e3:.0f} "
            f"| {row['speedup']:.1f} | {row['layout']} | {row['mib'] / row['stock_mib']:.2f} "
            f"| {peak} |"
        )
    return [*lines, ""]


def made_on(environment: dict[str, Any]) -> str:
    """One sentence about the machine of a benchmark."""
    packages = environment["packages"]
    return (
        f"{environment['cpus_usable']} CPU cores ({environment['machine']}), "
        f"{environment['device']}, torch {packages['torch']}, trl {packages['trl']}, "
        f"dspy {packages['dspy']}."
    )


def product_lines() -> list[str]:
    """What float32 products by oneDNN bring."""
    found = json.loads(PRODUCTS.read_text())
    lines = [
        "## Speed: float32 products by oneDNN instead of torch's default",
        "",
        f"Made by `{found['command']}`.",
        f"{made_on(found['environment'])} Medians of",
        "turns taken side by side.",
        "",
        "| work | seconds by default | seconds | times as fast |",
        "| --- | --- | --- | --- |",
    ]
    for work in ("reading", "learning"):
        row = found[work]
        lines.append(
            f"| {work} | {row['default_seconds']:.2f} | {row['seconds']:.2f} "
            f"| {row['speedup']:.2f} |"
        )
    return [*lines, ""]
