"""Common word to the name of its language, from the frequency lists of `wordfreq`."""

from functools import partial
from typing import Literal, TypeAlias

from pydantic import Field, NonNegativeInt

from fastslow.task.choices import ChoiceConfig
from fastslow.task.definition import Task, task
from fastslow.task.splits import facts_to_splits

Code: TypeAlias = Literal["en", "fr", "de", "es", "it", "pt"]
NAMES: dict[Code, str] = {
    "en": "English",
    "fr": "French",
    "de": "German",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
}
MIN_LETTERS = 5
MOST_FREQUENT = 2000
"""Words read from each list, so that every word is a common one."""
MARGIN = 1.5
"""Zipf units (powers of ten) by which a word must be more frequent than in the other languages."""


class WordLanguage(ChoiceConfig):
    """Parameters of `word_language`."""

    languages: tuple[Code, ...] = Field(tuple(NAMES), min_length=2)
    """Languages to tell apart, as ISO 639-1 codes."""
    words: int = Field(50, ge=10, le=80)
    """Words per language, the most frequent first."""
    validation: int = Field(42, ge=1, le=100)
    """Examples in the validation split."""
    test: int = Field(102, ge=1, le=300)
    """Examples in the test split; train gets the words that are left."""
    split_seed: NonNegativeInt = 0
    """Which words go into which split."""


@task(
    name="word_language",
    version=1,
    source="frequency lists of wordfreq (code Apache-2.0, data CC BY-SA 4.0)",
)
def word_language(config: WordLanguage) -> Task:
    """Language of a common word, one of six names. Score in [0, 1], higher is better.

    A word is taken only if it is at least 30 times as frequent in its language as in each other.
    """
    from wordfreq import top_n_list, zipf_frequency

    frequency = partial(zipf_frequency, wordlist="small")

    facts: dict[str, str] = {}
    for language in config.languages:
        rivals = [code for code in config.languages if code != language]
        words = [
            word
            for word in top_n_list(language, MOST_FREQUENT, wordlist="small")
            if len(word) >= MIN_LETTERS
            and word.isalpha()
            and all(
                frequency(word, language) - frequency(word, rival) >= MARGIN for rival in rivals
            )
        ]
        facts |= dict.fromkeys(words[: config.words], NAMES[language])
    answers = [NAMES[language] for language in config.languages]
    return Task(
        *facts_to_splits(
            facts, validation=config.validation, test=config.test, seed=config.split_seed
        ),
        instruction=config.instructed("Which language is the word from?", answers),
        grade=config.grader_of(answers),
        max_tokens=8,
    )
