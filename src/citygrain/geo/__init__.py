"""From OpenStreetMap to city rasters, and from layouts back to features. Nothing here needs torch."""
