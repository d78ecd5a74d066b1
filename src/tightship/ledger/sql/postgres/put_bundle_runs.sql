INSERT INTO bundle_runs (run, bundle) SELECT run, %s::bigint FROM unnest(%s::text[]) AS run
