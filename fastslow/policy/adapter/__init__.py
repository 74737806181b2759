"""LoRA adapters: attached, kept by stage, in parts, as changes of the weights."""
