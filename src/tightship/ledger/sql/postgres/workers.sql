SELECT id, host, pid, build, started_at, beat_at,
    beat_at > extract(epoch FROM clock_timestamp()) - %s AND number::oid IN (
        SELECT objid FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = (%s::bigint & 4294967295)::oid
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
FROM workers ORDER BY started_at, id
