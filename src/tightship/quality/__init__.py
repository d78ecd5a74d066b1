"""Judging a workflow before it goes live: drills that break it on purpose."""
