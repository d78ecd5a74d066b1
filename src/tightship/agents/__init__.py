"""Agents: Python functions, models, people; their turns and what they have in their hands."""
