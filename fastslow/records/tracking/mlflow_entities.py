"""What MLflow keeps besides metrics and prompts: the data of a run, and traces of rollouts."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from fastslow.core.credentials import without_keys
from fastslow.core.text import shorten
from fastslow.core.tracker import TaskSplit, TrackedSample

LONGEST_TEXT = 1000
"""Characters of a text in a trace."""


def dataset_inputs(splits: Sequence[TaskSplit]) -> list[Any]:
    """Each split as a dataset that the run used, under its fingerprint."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=split.task,
                digest=split.fingerprint,
                source_type="fastslow",
                source=json.dumps({"task": split.task, "split": split.split}),
                profile=json.dumps({"num_rows": split.size}),
            ),
            [InputTag("mlflow.data.context", split.split)],
        )
        for split in splits
    ]


def evaluation_records(split: TaskSplit) -> list[dict[str, Any]]:
    """The scored examples of a split, as rows of an evaluation dataset."""
    return [
        {
            "inputs": {"question": example.question},
            "expectations": {"expected_response": example.answer},
            "tags": {"example": example.id},
        }
        for example in split.examples
    ]


def log_trace(
    client: Any, experiment: str, run_id: str, identity: str, task: str, traced: TrackedSample
) -> None:
    """Keep a rollout as a trace of one span; the same rollout of a run has the same trace.

    `client` is MLflow's for traces. Texts are cut, and keys in them removed.
    """
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.entities.span import Span
    from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey, TraceTagKey

    sample, name = traced.sample, f"rollout {task}"
    digest = hashlib.sha256(f"{identity}/{traced.name}".encode()).hexdigest()
    trace_id, nanoseconds = f"tr-{digest[:32]}", int(traced.time * 1e9)
    question, answer = _cut(sample.question), _cut(sample.completion)
    tags = {"task": task, "prompt": sample.text_hash, "outcome": _cut(sample.outcome)}
    attributes = {
        SpanAttributeKey.REQUEST_ID: trace_id,
        SpanAttributeKey.SPAN_TYPE: "LLM",
        SpanAttributeKey.INPUTS: {"question": question},
        SpanAttributeKey.OUTPUTS: answer,
        **tags,
    }
    span = {
        "name": name,
        "trace_id": trace_id,
        "span_id": digest[32:48],
        "parent_span_id": None,
        "start_time_unix_nano": nanoseconds,
        "end_time_unix_nano": nanoseconds,
        "status": {"code": "STATUS_CODE_OK"},
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
    }
    client.log_spans(experiment, [Span.from_dict(span)])
    client.start_trace(
        TraceInfo(
            trace_id=trace_id,
            trace_location=TraceLocation.from_experiment_id(experiment),
            request_time=nanoseconds // 1_000_000,
            execution_duration=0,
            state=TraceState.OK,
            request_preview=question,
            response_preview=answer,
            trace_metadata={TraceMetadataKey.SOURCE_RUN: run_id},
            tags={TraceTagKey.TRACE_NAME: name, **tags},
        )
    )


def _cut(text: str) -> str:
    return shorten(without_keys(text[: 4 * LONGEST_TEXT]), LONGEST_TEXT)
