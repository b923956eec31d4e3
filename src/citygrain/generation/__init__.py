"""Drawing with a model: windows, areas, sites, and what is asked for over them."""
