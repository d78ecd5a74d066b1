"""Ids, time and chance, money, the error tree, signals, the ledger's vocabulary, ports. Imports nothing above it."""
