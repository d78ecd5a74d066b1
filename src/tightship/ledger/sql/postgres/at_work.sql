-- How many runs are worked on by owners that live: of each tenant and workflow, those below another one left out.
WITH here AS MATERIALIZED (
    SELECT objid FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = (%(lock)s::bigint & 4294967295)::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
alive AS MATERIALIZED (
    SELECT id FROM workers WHERE beat_at > %(now)s - %(lease)s AND number::oid IN (SELECT objid FROM here)
)
SELECT tenant, workflow, count(*) FROM runs
WHERE state = 'running' AND owner IN (SELECT id FROM alive) AND parent = '' AND live = %(live)s
    AND NOT (owner = %(owner)s AND id = ANY(%(idle)s::text[]))
GROUP BY tenant, workflow
