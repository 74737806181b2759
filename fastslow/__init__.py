"""fastslow: continual learning for language models through two channels.

The slow channel makes minimal LoRA updates, the fast channel evolves task prompts, and after
every stage a forgetting evaluator replays all tasks. Start with `fastslow --help`.
"""

from importlib.metadata import version

__version__ = version("fastslow")
