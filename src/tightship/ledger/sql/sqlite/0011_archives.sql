-- What stays of bundles that have left for an archive: entries that somebody still needs, as rows of `entries` are.
CREATE TABLE kept (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    data TEXT NOT NULL,
    crc INTEGER NOT NULL
);
CREATE INDEX kept_run ON kept (run);

-- The archives, each by the position of the entry that records it. `detail` is what rebuilding starts from.
CREATE TABLE archives (
    n INTEGER NOT NULL PRIMARY KEY,
    folder TEXT NOT NULL DEFAULT '',
    manifest TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '',
    before REAL NOT NULL DEFAULT 0,
    at REAL NOT NULL DEFAULT 0
);
