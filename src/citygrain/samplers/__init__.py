"""Ways to draw from a model: frozen values that hold the settings of one family's drawing."""
