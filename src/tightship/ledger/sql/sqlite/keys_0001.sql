-- The keystore: a file of its own, so that a destroyed key is not kept by any copy of the ledger.
-- `wrapped` is the key under the master key (AES-256-GCM, the name as associated data); empty once destroyed.
CREATE TABLE keys (
    name TEXT NOT NULL PRIMARY KEY,
    wrapped BLOB NOT NULL,
    created REAL NOT NULL
) WITHOUT ROWID;
