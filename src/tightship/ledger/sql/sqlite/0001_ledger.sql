-- One row per log (a tenant's). Every append locks this table first; `head` is the last position.
CREATE TABLE logs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    head INTEGER NOT NULL DEFAULT 0
);

-- The log itself. `id` is log * 2^40 + position: appends go to the right edge of the tree, and ranges are one log's.
-- `data` is the leaf: exactly these bytes are hashed into the Merkle tree. `crc` is over log, run and data.
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    data TEXT NOT NULL,
    crc INTEGER NOT NULL
);
CREATE INDEX entries_run ON entries (run);

-- Entries that are in the Merkle tree and no longer hot: 256 together, compressed (tlog-tiles entry bundle, then
-- deflate). `id` is that of the first entry, `crc` is over log, id and data.
CREATE TABLE bundles (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
);
-- Which bundles hold entries of a run.
CREATE TABLE bundle_runs (
    run TEXT NOT NULL,
    bundle INTEGER NOT NULL,
    PRIMARY KEY (run, bundle)
) WITHOUT ROWID;

-- Sealed values by content address. `scope` names the keys it is sealed with, empty for public definitions.
-- `data` is NULL when the sealed bytes lie in a file. `crc` is over address, scope and sealed bytes.
CREATE TABLE payloads (
    id INTEGER PRIMARY KEY,
    address BLOB NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    data BLOB,
    crc INTEGER NOT NULL
);

-- Merkle tiles and signed checkpoints (C2SP tlog-tiles, tlog-checkpoint).
CREATE TABLE tiles (
    log INTEGER NOT NULL,
    level INTEGER NOT NULL,
    position INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (log, level, position)
) WITHOUT ROWID;
CREATE TABLE checkpoints (
    log INTEGER NOT NULL,
    size INTEGER NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (log, size)
) WITHOUT ROWID;

-- Projections: readings of the log that are kept up in the append's transaction and can be rebuilt from it.
CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    log TEXT NOT NULL DEFAULT '',
    tenant TEXT NOT NULL DEFAULT '',
    workflow TEXT NOT NULL DEFAULT '',
    version TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT '',
    outcome TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    build TEXT NOT NULL DEFAULT '',
    wake_at REAL NOT NULL DEFAULT 0,
    seen INTEGER NOT NULL DEFAULT 0,
    last_signal INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0,
    parent TEXT NOT NULL DEFAULT '',
    reference TEXT NOT NULL DEFAULT '',
    input TEXT NOT NULL DEFAULT '',
    output TEXT NOT NULL DEFAULT '',
    package TEXT NOT NULL DEFAULT '',
    started_at REAL NOT NULL DEFAULT 0,
    ended_at REAL NOT NULL DEFAULT 0,
    usd INTEGER NOT NULL DEFAULT 0,
    tokens_in INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    live INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX runs_open ON runs (state, wake_at) WHERE state <> 'ended';
CREATE INDEX runs_ended ON runs (outcome, ended_at) WHERE state = 'ended';
-- The order of listings: the latest first, the key settling ties.
CREATE INDEX runs_started ON runs (started_at DESC, id);
CREATE INDEX runs_parent ON runs (parent) WHERE parent <> '';

CREATE TABLE inbox (
    item TEXT NOT NULL PRIMARY KEY,
    run TEXT NOT NULL DEFAULT '',
    log TEXT NOT NULL DEFAULT '',
    type TEXT NOT NULL DEFAULT '',
    role TEXT NOT NULL DEFAULT '',
    title TEXT NOT NULL DEFAULT '',
    due REAL NOT NULL DEFAULT 0,
    package TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT '',
    decision TEXT NOT NULL DEFAULT '',
    decided_by TEXT NOT NULL DEFAULT '',
    value TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '',
    opened_at REAL NOT NULL DEFAULT 0,
    closed_at REAL NOT NULL DEFAULT 0
);
CREATE INDEX inbox_open ON inbox (state, due);
CREATE INDEX inbox_run ON inbox (run);

CREATE TABLE spend (
    day TEXT NOT NULL,
    log TEXT NOT NULL,
    workflow TEXT NOT NULL,
    agent TEXT NOT NULL,
    name TEXT NOT NULL,
    cls TEXT NOT NULL,
    calls INTEGER NOT NULL DEFAULT 0,
    usd INTEGER NOT NULL DEFAULT 0,
    tokens_in INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    cached_in INTEGER NOT NULL DEFAULT 0,
    ms INTEGER NOT NULL DEFAULT 0,
    hits INTEGER NOT NULL DEFAULT 0,
    errors INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, log, workflow, agent, name, cls)
) WITHOUT ROWID;

CREATE TABLE halts (
    scope TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL DEFAULT '',
    by_whom TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    at REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE claims (
    key TEXT NOT NULL PRIMARY KEY,
    run TEXT NOT NULL DEFAULT '',
    effect TEXT NOT NULL DEFAULT '',
    n INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;

CREATE TABLE envelopes (
    scope TEXT NOT NULL,
    period TEXT NOT NULL,
    usd INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, period)
) WITHOUT ROWID;

CREATE TABLE erasures (
    subject TEXT NOT NULL PRIMARY KEY,
    by_whom TEXT NOT NULL DEFAULT '',
    at REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
