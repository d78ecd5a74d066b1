-- What a decision teaches: drawn cases of a class, in the order in which they were opened (`position`).
ALTER TABLE inbox ADD COLUMN position bigint NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN class text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE inbox ADD COLUMN confidence double precision NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN drawn bigint NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN held double precision NOT NULL DEFAULT -1;
ALTER TABLE inbox ADD COLUMN made_by text COLLATE "C" NOT NULL DEFAULT '[]';
ALTER TABLE inbox ADD COLUMN remind double precision NOT NULL DEFAULT 0;
CREATE INDEX inbox_class ON inbox (class, position) WHERE class != '';

-- The threshold of each class of decisions. `version` is the position of what set it, `since` the moment (us) from which on cases count.
CREATE TABLE thresholds (
    class text COLLATE "C" NOT NULL PRIMARY KEY,
    state text COLLATE "C" NOT NULL DEFAULT '',
    threshold double precision NOT NULL DEFAULT -1,
    frozen double precision NOT NULL DEFAULT -1,
    version bigint NOT NULL DEFAULT 0,
    since bigint NOT NULL DEFAULT 0,
    cases bigint NOT NULL DEFAULT 0,
    wrong bigint NOT NULL DEFAULT 0,
    error double precision NOT NULL DEFAULT 0,
    confidence double precision NOT NULL DEFAULT 0,
    by_whom text COLLATE "C" NOT NULL DEFAULT '',
    reason text COLLATE "C" NOT NULL DEFAULT '',
    at double precision NOT NULL DEFAULT 0
);
