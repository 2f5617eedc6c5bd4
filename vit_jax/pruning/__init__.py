"""Smaller and faster models out of trained ones."""
