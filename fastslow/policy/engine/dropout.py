"""Nothing at random but the draws: dropout and its kin are switched off in a loaded model.

With dropout the policy that is trained is not the one that was sampled, and KL to the base is not 0
before the first update.
"""

from typing import Any

RANDOM = ("drop", "jitter")
"""What the names of such settings contain in transformers' models: probabilities and noise."""


def switch_off_dropout(model: Any) -> None:
    """Set every dropout probability, layer drop and router noise of the modules to 0."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and any(word in name for word in RANDOM):
                setattr(module, name, 0.0)
