-- What a decision teaches: drawn cases of a class, in the order in which they were opened (`position`).
ALTER TABLE inbox ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN class TEXT NOT NULL DEFAULT '';
ALTER TABLE inbox ADD COLUMN confidence REAL NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN drawn INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN held REAL NOT NULL DEFAULT -1;
ALTER TABLE inbox ADD COLUMN made_by TEXT NOT NULL DEFAULT '[]';
ALTER TABLE inbox ADD COLUMN remind REAL NOT NULL DEFAULT 0;
CREATE INDEX inbox_class ON inbox (class, position) WHERE class != '';

-- The threshold of each class of decisions. `version` is the position of what set it, `since` the moment (us) from which on cases count.
CREATE TABLE thresholds (
    class TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL DEFAULT '',
    threshold REAL NOT NULL DEFAULT -1,
    frozen REAL NOT NULL DEFAULT -1,
    version INTEGER NOT NULL DEFAULT 0,
    since INTEGER NOT NULL DEFAULT 0,
    cases INTEGER NOT NULL DEFAULT 0,
    wrong INTEGER NOT NULL DEFAULT 0,
    error REAL NOT NULL DEFAULT 0,
    confidence REAL NOT NULL DEFAULT 0,
    by_whom TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    at REAL NOT NULL DEFAULT 0
);
