-- When the reviewers of an item had last something to hear of, and when they were reminded (0: never).
ALTER TABLE inbox ADD COLUMN noticed_at REAL NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN reminded_at REAL NOT NULL DEFAULT 0;

-- What outside systems were told of inbox items, and what they are still to be told of. `next`: when it is tried again.
CREATE TABLE deliveries (
    target TEXT NOT NULL,
    item TEXT NOT NULL,
    event TEXT NOT NULL,
    log TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    since REAL NOT NULL DEFAULT 0,
    next REAL NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '',
    at REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (target, item, event)
) WITHOUT ROWID;
CREATE INDEX deliveries_item ON deliveries (item);
CREATE INDEX deliveries_state ON deliveries (state, next) WHERE state <> 'delivered';
