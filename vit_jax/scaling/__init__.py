"""Scaling laws from logs: points, functional forms, estimation, intervals, compute frontier, figures and report page.

Nothing here imports JAX, a model or the trainer.
"""
