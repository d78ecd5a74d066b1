"""Tightship: durable, governed multi-agent systems."""
