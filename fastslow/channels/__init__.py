"""Channels adapt a policy: `fast` its texts, `slow` its weights. Neither knows the other."""
