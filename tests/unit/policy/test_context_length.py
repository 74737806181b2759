"""How many tokens a model reads, by its configuration."""

from typing import Any

import pytest

from fastslow.policy.token_lengths import context_length

SCALED = {"rope_type": "longrope", "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 256}}, 256),
        ({}, None),
        ({"max_position_embeddings": 131072, "rope_parameters": SCALED}, 4096),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 8192,
                "rope_scaling": {"type": "dynamic"},
            },
            8192,
        ),
        ({"max_position_embeddings": 131072, "rope_parameters": {"rope_type": "llama3"}}, 131072),
    ],
)
def test_positions_that_change_beyond_a_length_end_there(
    config: dict[str, Any], length: int | None
) -> None:
    assert context_length(config) == length
