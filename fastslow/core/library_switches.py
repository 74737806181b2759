"""Switches of libraries that would speak to the network, or too much, on their own.

They count when a library is imported, so the package sets them when it is imported itself. One that
the user has set stays as it is.
"""

import os
from collections.abc import Mapping

SWITCHES = {
    "DO_NOT_TRACK": "true",  # MLflow takes no other word
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "true",
    "LITELLM_LOCAL_BLOG_POSTS": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "LITELLM_MODE": "PRODUCTION",  # else it reads keys from a file .env it finds
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_DISABLE_WEAVE": "true",
    "WANDB_ERROR_REPORTING": "false",
}
"""Variables of the environment and their values. With them no library that a run imports opens a
socket on its own; `tests/integration/cli/test_silence.py` watches them."""


def set_switches(switches: Mapping[str, str]) -> None:
    """Set every switch that the environment does not set already."""
    for name, value in switches.items():
        os.environ.setdefault(name, value)
