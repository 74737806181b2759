"""fastslow: continual learning for language models through two channels.

The slow channel makes minimal LoRA updates, the fast channel evolves task prompts, and after
every stage a forgetting evaluator replays all tasks. Start with `fastslow --help`.
"""

from importlib.metadata import version

from fastslow.core.library_switches import silence

silence()

__version__ = version("fastslow")
