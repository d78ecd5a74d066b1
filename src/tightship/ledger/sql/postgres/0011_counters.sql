-- What has been counted for a run and all runs below it: handoffs, and messages from peer to peer.
CREATE TABLE counters (
    run text COLLATE "C" PRIMARY KEY,
    handoffs bigint NOT NULL DEFAULT 0,
    messages bigint NOT NULL DEFAULT 0
);

-- The shared context is listed by its keys, whatever their scopes.
CREATE INDEX context_keys ON context (key COLLATE "C", scope COLLATE "C");
