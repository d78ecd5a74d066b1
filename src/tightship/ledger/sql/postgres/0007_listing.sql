-- Listings of one workflow or one outcome: the latest first, however many other runs are stored.
CREATE INDEX runs_workflow ON runs (workflow, started_at DESC, id);
DROP INDEX runs_ended;
CREATE INDEX runs_outcome ON runs (outcome, started_at DESC, id) WHERE outcome <> '';
