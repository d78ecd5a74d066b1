"""Ids, time and chance, money, the error tree, signals, the ledger's vocabulary, the ports. Imports nothing above it."""
