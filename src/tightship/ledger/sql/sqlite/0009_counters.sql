-- What has been counted for a run and all runs below it: handoffs, and messages from peer to peer.
CREATE TABLE counters (
    run TEXT NOT NULL PRIMARY KEY,
    handoffs INTEGER NOT NULL DEFAULT 0,
    messages INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- What is lent in a period and not reconciled.
CREATE INDEX loans_open ON loans (period, owner, scope) WHERE closed = 0;
