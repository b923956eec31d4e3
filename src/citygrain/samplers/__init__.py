"""Samplers: ways to draw from a model. Each is a frozen dataclass that holds the settings of one way of drawing."""
