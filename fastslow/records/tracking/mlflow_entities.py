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
    from mlflow.tracing.utils import build_otel_context
    from opentelemetry.sdk.trace import ReadableSpan

    sample, name = traced.sample, f"rollout {task}"
    digest = hashlib.sha256(f"{identity}/{traced.name}".encode()).hexdigest()
    trace_id = f"tr-{digest[:32]}"
    question, answer = _cut(sample.question), _cut(sample.completion)
    tags = {"task": task, "example": _cut(sample.example), "prompt": sample.text_hash}
    outcome = {"outcome": _cut(sample.outcome)}
    values = {
        SpanAttributeKey.REQUEST_ID: trace_id,
        SpanAttributeKey.SPAN_TYPE: "LLM",
        SpanAttributeKey.INPUTS: {"question": question, "prompt": sample.text_hash},
        SpanAttributeKey.OUTPUTS: answer,
        **outcome,
    }
    start = int(traced.time * 1e9)
    span = ReadableSpan(
        name=name,
        context=build_otel_context(int(digest[:32], 16), int(digest[32:48], 16)),
        attributes={key: json.dumps(value) for key, value in values.items()},
        start_time=start,
        end_time=start,
    )
    client.log_spans(experiment, [Span(span)])
    client.start_trace(
        TraceInfo(
            trace_id=trace_id,
            trace_location=TraceLocation.from_experiment_id(experiment),
            request_time=int(traced.time * 1000),
            execution_duration=0,
            state=TraceState.OK,
            request_preview=question,
            response_preview=answer,
            trace_metadata={TraceMetadataKey.SOURCE_RUN: run_id},
            tags={TraceTagKey.TRACE_NAME: name, **tags, **outcome},
        )
    )


def _cut(text: str) -> str:
    return shorten(without_keys(text[: 4 * LONGEST_TEXT]), LONGEST_TEXT)
