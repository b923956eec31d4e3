"""citygrain: generative urban layouts from OpenStreetMap, steered and re-measured in physical units."""

__version__ = "0.1.0"
