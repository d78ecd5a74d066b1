"""Runs: the workspace that composes everything, and the engine that moves runs."""
