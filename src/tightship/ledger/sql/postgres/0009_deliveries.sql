-- When the reviewers of an item had last something to hear of, and when they were reminded (0: never).
ALTER TABLE inbox ADD COLUMN noticed_at double precision NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN reminded_at double precision NOT NULL DEFAULT 0;

-- What outside systems were told of inbox items, and what they are still to be told of. `next`: when it is tried again.
CREATE TABLE deliveries (
    target text COLLATE "C" NOT NULL,
    item text COLLATE "C" NOT NULL,
    event text COLLATE "C" NOT NULL,
    log text COLLATE "C" NOT NULL DEFAULT '',
    state text COLLATE "C" NOT NULL DEFAULT '',
    attempts bigint NOT NULL DEFAULT 0,
    since double precision NOT NULL DEFAULT 0,
    next double precision NOT NULL DEFAULT 0,
    why text COLLATE "C" NOT NULL DEFAULT '',
    at double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (target, item, event)
);
CREATE INDEX deliveries_item ON deliveries (item);
CREATE INDEX deliveries_state ON deliveries (state, next) WHERE state <> 'delivered';
