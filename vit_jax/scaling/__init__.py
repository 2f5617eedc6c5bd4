"""From logs to a law: points, forms, estimation, intervals, the frontier, figures and the report page.

Needs numpy and scipy only; nothing here imports JAX, a model or the trainer.
"""
