-- What each worker holds of the shared envelopes; `closed` once what a lost one had left was given back.
CREATE TABLE loans (
    owner TEXT NOT NULL,
    scope TEXT NOT NULL,
    period TEXT NOT NULL,
    usd INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    calls INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, scope, period)
) WITHOUT ROWID;

-- How far each workflow's schedule was kept: `upto` is its last slot that was dealt with, or when it was first seen.
CREATE TABLE schedules (
    log TEXT NOT NULL,
    workflow TEXT NOT NULL,
    cron TEXT NOT NULL DEFAULT '',
    timezone TEXT NOT NULL DEFAULT '',
    upto REAL NOT NULL DEFAULT 0,
    run TEXT NOT NULL DEFAULT '',
    started INTEGER NOT NULL DEFAULT 0,
    missed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (log, workflow)
) WITHOUT ROWID;
