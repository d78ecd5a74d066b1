-- What is worth a metric though it is no cost: breakers that opened and closed, arguments that were invented.
CREATE TABLE incidents (
    day TEXT NOT NULL,
    log TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    count INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, log, kind, name, state)
);
