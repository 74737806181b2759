"""Completions drawn by vLLM servers, which get every version of the adapter as a folder."""
