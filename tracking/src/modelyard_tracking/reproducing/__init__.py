"""Reproducing: a recorded run, run again, and what came out compared."""
