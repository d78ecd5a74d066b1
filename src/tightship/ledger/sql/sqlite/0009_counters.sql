-- What has been counted for a run and all runs below it: handoffs, and messages from peer to peer.
CREATE TABLE counters (
    run TEXT NOT NULL PRIMARY KEY,
    handoffs INTEGER NOT NULL DEFAULT 0,
    messages INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- The shared context is listed by its keys, whatever their scopes.
CREATE INDEX context_keys ON context (key, scope);
