-- What is worth a metric though it is no cost: breakers that opened and closed, arguments that were invented.
CREATE TABLE incidents (
    day text COLLATE "C" NOT NULL,
    log text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    count bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (day, log, kind, name, state)
);
