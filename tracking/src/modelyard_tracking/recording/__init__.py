"""Recording: what a run is, written to this machine's disk first, and its way to MongoDB."""
