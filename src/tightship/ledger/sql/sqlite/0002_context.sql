-- Heads of the shared context. `version` is the position of the write; `since` the position from which on the value was
-- read outside; `busy` counts gated actions under way on it, `used` and `used_at` say when the last of them settled.
CREATE TABLE context (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    log TEXT NOT NULL DEFAULT '',
    version INTEGER NOT NULL DEFAULT 0,
    at REAL NOT NULL DEFAULT 0,
    as_of REAL NOT NULL DEFAULT 0,
    ends REAL NOT NULL DEFAULT 0,
    since INTEGER NOT NULL DEFAULT 0,
    value TEXT NOT NULL DEFAULT '',
    writer TEXT NOT NULL DEFAULT '',
    run TEXT NOT NULL DEFAULT '',
    sources TEXT NOT NULL DEFAULT '[]',
    labels TEXT NOT NULL DEFAULT '[]',
    busy INTEGER NOT NULL DEFAULT 0,
    used INTEGER NOT NULL DEFAULT 0,
    used_at REAL NOT NULL DEFAULT 0,
    writes INTEGER NOT NULL DEFAULT 0,
    reads INTEGER NOT NULL DEFAULT 0,
    stale INTEGER NOT NULL DEFAULT 0,
    refreshes INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    write_conflicts INTEGER NOT NULL DEFAULT 0,
    read_conflicts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

-- How old values were when they were read: bucket b counts ages below 2^b ms.
CREATE TABLE context_ages (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    reads INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key, bucket)
) WITHOUT ROWID;
