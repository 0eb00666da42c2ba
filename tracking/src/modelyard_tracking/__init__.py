"""Runs, sweeps, approval and the model store: the scientist's side of the road."""
