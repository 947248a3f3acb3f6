"""Hyperparameter search problems; each module has a ``Problem`` and a ``run``."""
