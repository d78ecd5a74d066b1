-- The keystore, in a schema of its own (or a database of its own): no copy of the ledger holds a key.
-- `wrapped` is the key under the master key (AES-256-GCM, the name as associated data); empty once destroyed.
CREATE TABLE keys (
    name text COLLATE "C" NOT NULL PRIMARY KEY,
    wrapped bytea NOT NULL,
    created double precision NOT NULL
);
