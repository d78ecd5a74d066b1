"""The peers: each module here runs in the peers' own environment (see environment.py)."""
