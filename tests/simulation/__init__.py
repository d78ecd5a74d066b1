"""Deterministic simulation of engine, outside world and people from one seed."""
