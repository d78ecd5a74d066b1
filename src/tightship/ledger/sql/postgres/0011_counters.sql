-- What has been counted for a run and all runs below it: handoffs, and messages from peer to peer.
CREATE TABLE counters (
    run TEXT NOT NULL PRIMARY KEY,
    handoffs BIGINT NOT NULL DEFAULT 0,
    messages BIGINT NOT NULL DEFAULT 0
);

-- What is lent in a period and not reconciled.
CREATE INDEX loans_open ON loans (period, owner, scope) WHERE closed = 0;
