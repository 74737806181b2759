"""Keys of services, kept out of configurations, files, logs and messages.

The configuration refuses values that look like a key; whatever repeats the words of a service
removes them. Keys themselves come from the environment alone.
"""

import re
from collections.abc import Iterable

REMOVED = "[removed]"
"""Stands where a key was."""

_KEY = re.compile(
    r"""
    (?<![A-Za-z0-9]) sk - [A-Za-z0-9_*-]{12,}                   # OpenAI and many others
    | (?<![A-Za-z0-9]) (?: pk | rk | gsk | xai | hf | pplx | nvapi | r8 ) [-_]
        (?= [A-Za-z]* \d ) [A-Za-z0-9]{16,}
    | AIza [A-Za-z0-9_-]{30,}                                   # Google
    | bearer \s+ (?= \S* \d ) [A-Za-z0-9._~+/=*-]{8,}
    | (?<= :// ) [^\s/@:]* : [^\s/@]+ (?= @ )                   # user:password@host
    | (?: (?<= http:// ) | (?<= https:// ) ) (?! \[removed ) [^\s/@]+ (?= @ )  # token@host
    | (?<= [?&] ) [\w-]* (?: key | token | secret ) = [^\s&]+   # in an address
    | \b [A-Za-z0-9]{40,} \b                                    # judged by _is_key
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MIXED = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)")


def looks_like_key(text: str) -> bool:
    """Whether `text` holds something that has the form of a key, a password or a token."""
    return any(_is_key(match) for match in _KEY.finditer(text))


def without_keys(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with keys replaced by `[removed]`.

    `secrets` are keys in use, removed wherever they stand; removing short ones would tear words
    apart, so they are left alone.
    """
    for key in secrets:
        if len(key) >= 8:
            text = text.replace(key, REMOVED)
    return _KEY.sub(lambda match: REMOVED if _is_key(match) else match[0], text)


def _is_key(match: re.Match[str]) -> bool:
    """Long runs of letters and digits are keys only with capitals, small letters and digits.

    A commit hash in the path of a model is not a key.
    """
    text = match[0]
    return bool(_MIXED.match(text)) if re.fullmatch(r"[A-Za-z0-9]{40,}", text) else True
