"""Sweeping: searching a project's space with Ray Tune, each trial exactly one recorded run, and an honest winner."""
