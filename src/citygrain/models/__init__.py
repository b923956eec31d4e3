"""Families of generative models, one module each, behind the contract of `citygrain.protocols`."""
