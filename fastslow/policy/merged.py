"""The base with an adapter folded in, for programs that take no adapter."""

from pathlib import Path
from typing import Any

from fastslow.core.errors import ModelError
from fastslow.policy.policy import Policy


def save_merged(policy: Policy, adapter: Path | None, folder: Path, settings: Any) -> None:
    """Write the base with a saved adapter folded in, as safetensors.

    The policy, freshly loaded without an adapter, is used up. Without a PEFT folder as `adapter`
    the base is written as it is; `settings` is the generation configuration to be written along.

    Raises:
        ModelError: The adapter changes the output layer, which the model shares with its input.
    """
    from peft import PeftModel

    model = policy.model
    if adapter is not None:
        head = model.get_output_embeddings()
        is_tied = bool(getattr(model.config, "tie_word_embeddings", False))
        model = PeftModel.from_pretrained(model, str(adapter))
        adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
        if is_tied and any(model.get_submodule(name).base_layer is head for name in adapted):
            raise ModelError(
                "export --merge: the adapter changes the output layer, which this model shares "
                "with its input embeddings; merging would change those too. Export without --merge."
            )
        model = model.merge_and_unload(safe_merge=True)
    model.generation_config = settings
    model.save_pretrained(folder)
