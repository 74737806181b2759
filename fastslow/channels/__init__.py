"""Channels adapt a policy: `fast` through texts, `slow` through weights. Neither knows the other."""
