INSERT INTO bundle_runs (run, bundle) VALUES (?, ?)
