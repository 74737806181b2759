"""Addresses that runs are published at."""

import re

from fastslow.core.credentials import looks_like_key
from fastslow.core.errors import nearest

PROTOCOLS = {"file": None, "gs": "gcsfs", "hf": "huggingface_hub", "memory": None, "s3": "s3fs"}
"""What an address may begin with, and the package that reaches it; None where none is needed."""
EXTRAS = {"gcsfs": "gcs", "s3fs": "s3"}
"""Extras of ours that bring a package."""


def require_address(address: str) -> str:
    """The protocol of an address such as `s3://bucket/prefix`.

    Raises:
        ValueError: It is not an address, of another protocol, or holds a password.
    """
    if looks_like_key(address) or re.search(r"://[^/]*@", address):
        raise ValueError(
            "holds what looks like a key or a password. Keys come from the environment alone, as "
            "the tools of the store find them: leave it out of the address."
        )
    protocol, mark, place = address.partition("://")
    names = sorted(PROTOCOLS.keys() - {"memory"})
    if not mark or protocol not in PROTOCOLS:
        raise ValueError(
            f"not an address where runs can be published, got {address[:80]!r}. It begins with the "
            f"name of a store and ://.{nearest(protocol, names)}"
        )
    if not place.strip("/") or "::" in place or ".." in place.split("/"):
        raise ValueError(f"names no place of its own, got {address[:80]!r}.")
    if protocol == "hf" and place.strip("/").count("/") < 1:
        raise ValueError(f"expected hf://owner/name, got {address[:80]!r}.")
    return protocol
