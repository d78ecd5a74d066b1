-- Listings of one tenant's runs: the latest first, however many others have.
CREATE INDEX runs_tenant ON runs (tenant, started_at DESC, id);
