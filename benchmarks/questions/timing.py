"""What a pass of readings takes, beside two updates of the demonstration's size, turn by turn."""

import time
from statistics import median
from typing import Any

from benchmarks.questions.setting import demonstrated, tasks
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.core.prompts import Candidate
from fastslow.loop.build import build_slow
from fastslow.loop.stream import Stream
from fastslow.policy.policy import Policy, with_adapter

TURNS, UPDATES, PROBLEMS, READ = 3, 2, 8, 240


def time_readings(base: Policy) -> dict[str, Any]:
    """Seconds of both, and the median of their ratio over the turns."""
    settings = GrpoConfig()
    policy = with_adapter(base, **dict(settings.lora), seed=0)
    task = tasks()["country_continent"]
    prompted = demonstrated(task, 4, draw=0)
    policy.populations[task.name] = (Candidate(prompted.program, {}),)
    stream = Stream(
        task.name,
        task.train,
        seed=0,
        stage=0,
        start=0,
        num_cycles=TURNS + 1,
        steps=UPDATES,
        problems=PROBLEMS,
        pool=16,
    )
    problems = prompted.examples[:READ]
    channel = build_slow(settings, 0, visits=[(task, True)])
    readings_s, updates_s = [], []
    for cycle in range(TURNS + 1):
        began = time.perf_counter()
        policy.read_prompts(prompted.program, problems)
        middle = time.perf_counter()
        channel.adapt(policy, task, stream.anchor(cycle), cycle, lambda *_: None)
        readings_s.append(middle - began)
        updates_s.append(time.perf_counter() - middle)
    # the first turn is slower and does not count
    ratios = [a / b for a, b in zip(readings_s[1:], updates_s[1:], strict=True)]
    return {
        "problems": len(problems),
        "rollouts of an update": PROBLEMS * settings.group,
        "readings, seconds": [round(s, 2) for s in readings_s[1:]],
        "two updates, seconds": [round(s, 2) for s in updates_s[1:]],
        "ratio": round(median(ratios), 2),
    }
