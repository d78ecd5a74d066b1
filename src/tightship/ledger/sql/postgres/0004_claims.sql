-- Claiming looks at what is due by tenant and rank, whatever else is stored or waits.
CREATE INDEX runs_queued ON runs (tenant, (started_at + 60 * priority), id) WHERE state = 'queued';
CREATE INDEX runs_parked ON runs (wake_at) WHERE state = 'parked';
CREATE INDEX runs_running ON runs (tenant, owner) WHERE state = 'running';
