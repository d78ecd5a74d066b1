"""Benchmarks: Tightship, its peers and the physical limits, measured in one call (see README.md)."""
