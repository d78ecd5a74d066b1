-- What stays of bundles that have left for an archive: entries that somebody still needs, as rows of `entries` are.
CREATE TABLE kept (
    id bigint PRIMARY KEY,
    run text COLLATE "C" NOT NULL,
    data text COLLATE "C" NOT NULL,
    crc bigint NOT NULL
);
CREATE INDEX kept_run ON kept (run);

-- The archives, each by the position of the entry that records it. `detail` is what rebuilding starts from.
CREATE TABLE archives (
    n bigint NOT NULL PRIMARY KEY,
    folder text COLLATE "C" NOT NULL DEFAULT '',
    manifest text COLLATE "C" NOT NULL DEFAULT '',
    detail text COLLATE "C" NOT NULL DEFAULT '',
    before double precision NOT NULL DEFAULT 0,
    at double precision NOT NULL DEFAULT 0
);
