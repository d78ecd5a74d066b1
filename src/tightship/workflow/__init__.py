"""A workspace as data: YAML with line numbers, the tree of patterns, conditions, versions, and the readiness check."""
