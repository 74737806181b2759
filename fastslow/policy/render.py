"""The one renderer: (prompt, question) to chat messages to token ids.

The fast channel scores, the slow channel trains on and the user deploys the same token sequence,
because all of them use this module.
"""

import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import takewhile
from typing import Any, TypeAlias

from fastslow.core.errors import ModelError
from fastslow.core.prompts import BARE, PromptProgram
from fastslow.core.types import TokenIds
from fastslow.policy.template import (
    FOLD_SYSTEM,
    bound_template,
    plain_template,
    starts_with_bos,
    without_last_space,
)

logger = logging.getLogger(__name__)

Message: TypeAlias = dict[str, str]

STAND_IN = "stand-in"
"""An answer put into the template to see what stands around an answer."""
QUESTION: Message = {"role": "user", "content": "u"}
MARKS = {
    "system": "mark-of-the-instruction",
    "user": "mark-of-a-question",
    "assistant": "mark-of-an-answer",
}
"""Texts of a conversation by role, put into the template to see whether they come out of it."""


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
    """Turns messages into token ids with the tokenizer's chat template, or plain turns without one.

    The template is bound to `arguments` and to `day` (default: today) and made to show system text;
    it becomes the tokenizer's own, so that whoever loads the tokenizer renders as this class does.

    Raises:
        ModelError: The template does not read an argument, or leaves out turns.
    """

    def __init__(
        self, tokenizer: Any, arguments: Mapping[str, Any] | None = None, day: date | None = None
    ) -> None:
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            logger.warning("The tokenizer has no chat template; using plain 'Q: … A: …' turns.")
            tokenizer.chat_template = plain_template(tokenizer)
        source = tokenizer.get_chat_template()
        template = bound_template(source, arguments or {}, day or date.today())
        tokenizer.chat_template = template
        if "system" in self._hidden_roles():
            tokenizer.chat_template = FOLD_SYSTEM + template
        if hidden := self._hidden_roles():
            raise ModelError(
                "model.name: the chat template of this model leaves out the text of these turns: "
                f"{', '.join(hidden)}. Mend chat_template in its tokenizer files, or remove it to "
                "use plain turns."
            )
        if self._opening.endswith(" "):  # alone a token that no demonstration has: " word" is one
            tokenizer.chat_template = without_last_space(tokenizer.chat_template)
            del self._opening

    def prompt_ids(self, program: PromptProgram, question: str, hint: str = "") -> TokenIds:
        """Token ids of the whole prompt, up to where the completion starts.

        A `hint` follows the question in its turn; see `message_ids` for what is left out.
        """
        *earlier, last = without_own_answer(chat_messages(program, question))
        return self._ids(self._text([*earlier, {**last, "content": last["content"] + hint}]))

    def informed_ids(self, program: PromptProgram, question: str, answer: str) -> TokenIds:
        """The prompt with the question and its answer as a last demonstration, for a teacher.

        Nothing is drawn or scored under it: see `message_ids`.
        """
        *earlier, last = without_own_answer(chat_messages(program, question))
        return self._ids(
            self._text([*earlier, last, {"role": "assistant", "content": answer}, last])
        )

    def message_ids(self, messages: Sequence[Mapping[str, str]]) -> TokenIds:
        """Token ids of `messages` and the opening of the assistant's next turn.

        A demonstration of the question at hand is left out: no prompt shows the answer it is asked.
        """
        return self._ids(self._text(without_own_answer(messages)))

    def question_ids(
        self, question: str, program: PromptProgram = BARE
    ) -> tuple[TokenIds, TokenIds]:
        """The ids of a prompt before its question, and the question's; by default of no prompt.

        Both are at least one token. A token that reaches over an end of the question is the
        question's; the first token of the whole is not, since nothing predicts it.
        """
        ids = self.prompt_ids(program, question)
        mark = MARKS["user"]
        *earlier, last = without_own_answer(chat_messages(program, question))
        head, _, tail = self._text([*earlier, {**last, "content": mark}]).rpartition(mark)
        start = max(1, num_shared(ids, self._ids(head)))
        end = len(ids) - num_shared(ids[:start:-1], self._ids(tail)[::-1])
        return ids[:start], ids[start:end]

    def text_ids(self, text: str, *, inside: bool = False) -> TokenIds:
        """Token ids of plain prose as a model is pretrained on it, without a chat around it.

        Those of a text that is `inside` a sequence do not begin one.
        """
        begins = starts_with_bos(self.tokenizer) and not inside
        bos = (self.tokenizer.bos_token_id,) if begins else ()
        return (*bos, *self._ids(text))

    def num_tokens(self, text: str) -> int:
        """Tokens of a text by itself."""
        return len(self._ids(text))

    def answer_ids(self, answer: str) -> TokenIds:
        """Token ids of `answer` as a completion, then the token that ends the turn.

        They are those that the template gives the answer after its opening of the turn, with what
        it writes before an answer (a space, an empty thought). So `prompt_ids(...) +
        answer_ids(...)` is what a policy that answers so has written, and what a demonstration
        shows, unless the template writes past turns in another way than the present one.
        """
        ids = self._completion_ids(answer)
        return (*(self._ids(answer) if ids is None else ids), self.stop_id)

    @cached_property
    def stop_id(self) -> int:
        """The special token the template ends an assistant's turn with, else the end of text."""
        after = self._ids(self._closing)
        is_special = bool(after) and after[0] in self.tokenizer.added_tokens_decoder
        return int(after[0] if is_special else self.tokenizer.eos_token_id)

    @cached_property
    def answer_prefix(self) -> str:
        """Text before an answer that is the template's, as it comes out of decoding."""
        ids = self._completion_ids(STAND_IN) or ()
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).partition(STAND_IN)[0]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a completion, without special tokens and what the template writes before it."""
        text = str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))
        return text.removeprefix(self.answer_prefix)

    def ids_before(self, token_ids: TokenIds, mark: str) -> TokenIds:
        """The tokens of a completion before the one in which the last `mark` of its text begins.

        All of them where there is no `mark`.
        """

        def is_past(start: int) -> bool:
            return mark not in self.decode(token_ids[start:])

        # shorter and shorter tails hold the mark, up to the one that starts within it
        past = bisect_left(range(len(token_ids)), True, key=is_past)
        return token_ids[: past - 1] if past else token_ids

    @cached_property
    def _opening(self) -> str:
        """A question and the opening of the answer's turn."""
        return self._text([QUESTION])

    @cached_property
    def _closing(self) -> str:
        """What follows an answer."""
        return self._answered(STAND_IN).rpartition(STAND_IN)[2]

    def _completion_ids(self, answer: str) -> TokenIds | None:
        """Ids behind the opening, read in its context; None where a token spans both sides."""
        text = self._answered(answer).removesuffix(self._closing)
        opening, sequence = self._ids(self._opening), self._ids(text)
        is_split = text.startswith(self._opening) and sequence[: len(opening)] == opening
        return sequence[len(opening) :] if is_split else None

    def _answered(self, answer: str) -> str:
        return self._text([QUESTION, {"role": "assistant", "content": answer}], opens=False)

    def _text(self, messages: Sequence[Mapping[str, str]], opens: bool = True) -> str:
        apply = self.tokenizer.apply_chat_template
        return str(apply(list(messages), tokenize=False, add_generation_prompt=opens))

    def _ids(self, text: str) -> TokenIds:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _hidden_roles(self) -> list[str]:
        """Roles whose text does not come out of the template, with demonstrations or without."""
        from jinja2.exceptions import TemplateError

        system, user, assistant = ({"role": r, "content": text} for r, text in MARKS.items())
        hidden = set()
        for messages in ([system, user], [system, user, assistant, QUESTION]):
            try:
                text = self._text(messages)
            except TemplateError:
                return list(MARKS)
            hidden |= {m["role"] for m in messages if m["content"] not in text}
        return [role for role in MARKS if role in hidden]


def num_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many elements two sequences have in common before they differ."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def without_own_answer(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The messages but for earlier turns that ask the last one's question, and their answers.

    A score or a rollout under a prompt that shows the answer would measure copying. Questions are
    compared without letter case and white space at their ends and in a row.
    """
    *earlier, last = messages
    question = " ".join(last["content"].casefold().split())
    others: list[Mapping[str, str]] = []
    is_own = False
    for message in earlier:
        if message["role"] == "user":
            is_own = " ".join(message["content"].casefold().split()) == question
        if not is_own or message["role"] == "system":
            others.append(message)
    return [*others, last]
