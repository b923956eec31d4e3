"""Judging layouts: urban form first, then everything that generative models are judged by.

Here are the options of `citygrain.evaluation.judge.evaluate`: how each of its judges works.
"""

from citygrain.evaluation.options import Classifier, Disruption, Embedding, Memorisation, Obedience

__all__ = ["Classifier", "Disruption", "Embedding", "Memorisation", "Obedience"]
