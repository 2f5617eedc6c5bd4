"""Pruning and token merging: smaller or faster models from trained ones."""
