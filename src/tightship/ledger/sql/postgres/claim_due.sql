WITH here AS MATERIALIZED (
    SELECT objid FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = (%s::bigint & 4294967295)::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
alive AS MATERIALIZED (
    SELECT id FROM workers WHERE beat_at > %s - %s AND number::oid IN (SELECT objid FROM here)
),
busy AS (
    SELECT tenant, count(*) AS running FROM runs
    WHERE state = 'running' AND owner IN (SELECT id FROM alive) GROUP BY tenant
),
due AS (
    SELECT id, tenant, priority, started_at,
        row_number() OVER (PARTITION BY tenant ORDER BY started_at + 60 * priority, id) AS place
    FROM runs
    WHERE state <> 'ended' AND build = %s AND live = %s AND (
        state = 'queued' OR (state = 'parked' AND wake_at <= %s)
        OR (state = 'running' AND owner NOT IN (SELECT id FROM alive))
    )
)
SELECT {columns} FROM runs JOIN due ON due.id = runs.id LEFT JOIN busy ON busy.tenant = due.tenant
ORDER BY coalesce(running, 0) + place, due.started_at + 60 * due.priority, due.id
LIMIT %s
FOR UPDATE OF runs SKIP LOCKED
