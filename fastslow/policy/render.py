"""The one renderer: (prompt, question) to chat messages to token ids.

The fast channel scores, the slow channel trains on and the user deploys the same token sequence,
because all of them use this module.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import TokenIds

Message: TypeAlias = dict[str, str]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'system': '', 'user': 'Q: ', 'assistant': 'A: '}[message['role']] }}"
    "{{ message['content'] }}{{ eos_token if message['role'] == 'assistant' else '' }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
)
"""For tokenizers without a chat template: base models, mostly."""

FOLD_SYSTEM = (
    "{% if messages and messages[0]['role'] == 'system' and messages | length > 1 %}"
    "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\n\n' "
    "+ messages[1]['content']}] + messages[2:] %}{% endif %}{{ '' }}"
)
"""`fold_system` as the beginning of a chat template."""

STAND_IN = "stand-in"
"""An answer put into the template to see what follows an answer."""


def chat_messages(program: PromptProgram, question: str) -> list[Message]:
    """System text, demonstrations as user and assistant turns, then the question.

    An empty instruction gives no system turn; some chat templates then put in one of their own.
    """
    messages = [{"role": "system", "content": program.instruction}] if program.instruction else []
    for demonstration in program.demonstrations:
        messages += [
            {"role": "user", "content": demonstration.question},
            {"role": "assistant", "content": demonstration.answer},
        ]
    return [*messages, {"role": "user", "content": question}]


class Renderer:
    """Turns messages into token ids with the tokenizer's own chat template or `PLAIN_TEMPLATE`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.has_own_template = tokenizer.chat_template is not None
        if not self.has_own_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        self._takes_system = self._renders([{"role": "system", "content": "s"}])

    def prompt_ids(self, program: PromptProgram, question: str) -> TokenIds:
        """Token ids of the whole prompt, up to where the completion starts."""
        return self.message_ids(chat_messages(program, question))

    def message_ids(self, messages: Sequence[Mapping[str, str]]) -> TokenIds:
        """Token ids of `messages` and the opening of the assistant's next turn.

        A demonstration of the question at hand is left out: no prompt shows the answer it is asked.
        """
        messages = without_own_answer(messages)
        text = self._text(list(messages) if self._takes_system else fold_system(messages))
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer_ids(self, answer: str) -> TokenIds:
        """Token ids of `answer` as a completion: its text, then the token that ends the turn.

        `prompt_ids(...) + answer_ids(...)` is what a policy that answers so has written.
        """
        return (*self.tokenizer(answer, add_special_tokens=False)["input_ids"], self.stop_id)

    @cached_property
    def stop_id(self) -> int:
        """The special token the template ends an assistant's turn with, else the end of text."""
        turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": STAND_IN}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        after = self.tokenizer(text.rpartition(STAND_IN)[2], add_special_tokens=False)["input_ids"]
        is_special = bool(after) and after[0] in self.tokenizer.added_tokens_decoder
        return int(after[0] if is_special else self.tokenizer.eos_token_id)

    @property
    def portable_template(self) -> str:
        """A chat template by which any client renders system text and turns as this class does."""
        template = str(self.tokenizer.chat_template)
        return template if self._takes_system else FOLD_SYSTEM + template

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a completion, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def _text(self, messages: list[Mapping[str, str]]) -> str:
        apply = self.tokenizer.apply_chat_template
        return str(apply(messages, tokenize=False, add_generation_prompt=True))

    def _renders(self, messages: list[Message]) -> bool:
        from jinja2.exceptions import TemplateError

        try:
            self._text([*messages, {"role": "user", "content": "u"}])
        except TemplateError:
            return False
        return True


def without_own_answer(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The messages but for earlier turns that ask the last one's question, and their answers.

    A score or a rollout under a prompt that shows the answer would measure copying. Questions are
    compared without letter case and white space at their ends and in a row.
    """
    *earlier, last = messages
    asked = " ".join(last["content"].casefold().split())
    others: list[Mapping[str, str]] = []
    is_own = False
    for message in earlier:
        if message["role"] == "user":
            is_own = " ".join(message["content"].casefold().split()) == asked
        if not is_own or message["role"] == "system":
            others.append(message)
    return [*others, last]


def fold_system(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Put the system text before the first user turn, for templates that refuse a system role."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, first, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]
