-- Heads of the shared context. `version` is the position of the write; `since` the position from which on the value was
-- read outside; `busy` counts gated actions under way on it, `used` and `used_at` say when the last of them settled.
CREATE TABLE context (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    log TEXT NOT NULL DEFAULT '',
    version BIGINT NOT NULL DEFAULT 0,
    at DOUBLE PRECISION NOT NULL DEFAULT 0,
    as_of DOUBLE PRECISION NOT NULL DEFAULT 0,
    ends DOUBLE PRECISION NOT NULL DEFAULT 0,
    since BIGINT NOT NULL DEFAULT 0,
    value TEXT NOT NULL DEFAULT '',
    writer TEXT NOT NULL DEFAULT '',
    run TEXT NOT NULL DEFAULT '',
    sources TEXT NOT NULL DEFAULT '[]',
    labels TEXT NOT NULL DEFAULT '[]',
    busy BIGINT NOT NULL DEFAULT 0,
    used BIGINT NOT NULL DEFAULT 0,
    used_at DOUBLE PRECISION NOT NULL DEFAULT 0,
    writes BIGINT NOT NULL DEFAULT 0,
    reads BIGINT NOT NULL DEFAULT 0,
    stale BIGINT NOT NULL DEFAULT 0,
    refreshes BIGINT NOT NULL DEFAULT 0,
    refusals BIGINT NOT NULL DEFAULT 0,
    write_conflicts BIGINT NOT NULL DEFAULT 0,
    read_conflicts BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key)
);

-- How old values were when they were read: bucket b counts ages below 2^b ms.
CREATE TABLE context_ages (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    bucket BIGINT NOT NULL,
    reads BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key, bucket)
);
