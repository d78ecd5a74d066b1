"""The transparency log: a Merkle tree over the ledger's entries that software we did not write can check.

| module | what it holds |
|---|---|
| `tree` | RFC 6962 / RFC 9162 hashes, compact range, inclusion and consistency proofs |
| `tiles` | the tree's hashes as C2SP tlog-tiles, integration of new leaves, entry bundles |
| `keys` | Ed25519 note keys and witness cosignature keys, their text encodings |
| `note` | C2SP signed-note: text with signature lines |
| `checkpoint` | C2SP tlog-checkpoint: origin, size and root, signed |
| `proof` | one entry with its proof as C2SP tlog-proof text |
| `locate` | which entry or which tile was changed |
| `export` | the log as a static folder, and reading such a folder |

Everything here is synchronous, does no input or output but in `export`, and knows nothing of the store:
hashes are read and written through the `TileSource` and `TileStore` protocols.
"""
