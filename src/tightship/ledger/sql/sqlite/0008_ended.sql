-- Runs that ended in a time (audits, checks of drift), of all workflows or of one: the latest first.
CREATE INDEX runs_ended ON runs (ended_at DESC, id) WHERE state = 'ended';
CREATE INDEX runs_workflow_ended ON runs (workflow, ended_at DESC, id) WHERE state = 'ended';
-- Parked runs that wait for no time: a page at a time, by their keys.
DROP INDEX runs_open;
CREATE INDEX runs_open ON runs (state, wake_at, id) WHERE state <> 'ended';
