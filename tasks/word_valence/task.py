"""English word to `positive` or `negative`, from the AFINN word list through `afinn`."""

from pydantic import Field, NonNegativeInt

from fastslow.task.choices import ChoiceConfig
from fastslow.task.definition import Task, task
from fastslow.task.splits import facts_to_splits

ANSWERS = ("positive", "negative")
MIN_LETTERS = 5
STEM_LETTERS = 4
MIN_VALENCE, MAX_VALENCE = 2, 3
"""AFINN rates from -5 to 5: weaker words are doubtful, stronger ones mostly coarse."""


class WordValence(ChoiceConfig):
    """Parameters of `word_valence`."""

    words: int = Field(150, ge=20, le=200)
    """Words per answer, the most frequent first."""
    validation: int = Field(40, ge=1, le=100)
    """Examples in the validation split."""
    test: int = Field(100, ge=1, le=200)
    """Examples in the test split; train gets the words that are left."""
    split_seed: NonNegativeInt = 0
    """Which words go into which split."""


@task(
    name="word_valence",
    version=1,
    source="AFINN-en-165 (Nielsen 2011, ODbL 1.0) as packaged by afinn; order by wordfreq",
)
def word_valence(config: WordValence) -> Task:
    """Whether a word is `positive` or `negative`. Score in [0, 1], higher is better.

    Words that begin with the same four letters count as one family, of which the most frequent is
    kept: otherwise a test word would be a train word with another ending.
    """
    from afinn import Afinn
    from wordfreq import zipf_frequency

    afinn = Afinn()
    ratings: dict[str, int] = afinn.read_word_file(afinn.full_filename("AFINN-en-165.txt"))
    candidates = [
        word
        for word, rating in ratings.items()
        if MIN_VALENCE <= abs(rating) <= MAX_VALENCE
        and len(word) >= MIN_LETTERS
        and word.isascii()
        and word.isalpha()
        and word not in ANSWERS
    ]
    candidates.sort(key=lambda word: (-zipf_frequency(word, "en", wordlist="small"), word))
    families: dict[str, str] = {}
    for word in candidates:
        families.setdefault(word[:STEM_LETTERS], word)
    liked = [word for word in families.values() if ratings[word] > 0][: config.words]
    disliked = [word for word in families.values() if ratings[word] < 0][: config.words]
    return Task(
        *facts_to_splits(
            dict.fromkeys(liked, ANSWERS[0]) | dict.fromkeys(disliked, ANSWERS[1]),
            validation=config.validation,
            test=config.test,
            seed=config.split_seed,
        ),
        instruction=config.instructed("Judge the word.", ANSWERS),
        grade=config.grader_of(ANSWERS),
        max_tokens=8,
    )
