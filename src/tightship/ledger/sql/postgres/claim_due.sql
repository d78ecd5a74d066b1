WITH RECURSIVE here AS MATERIALIZED (
    SELECT objid FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid = (%(lock)s::bigint & 4294967295)::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
alive AS MATERIALIZED (
    SELECT id FROM workers WHERE beat_at > %(now)s - %(lease)s AND number::oid IN (SELECT objid FROM here)
),
-- tenants that have queued runs, one look at the index for each
tenants AS (
    (SELECT tenant FROM runs WHERE state = 'queued' ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT r.tenant FROM runs r WHERE r.state = 'queued' AND r.tenant > t.tenant ORDER BY r.tenant LIMIT 1)
    FROM tenants t WHERE t.tenant IS NOT NULL
),
-- of what is bounded, only what there is room for; a run below another one has its place, and is never queued
due AS (
    SELECT q.* FROM tenants t CROSS JOIN LATERAL (
        SELECT id, tenant, priority, started_at FROM runs
        WHERE state = 'queued' AND tenant = t.tenant AND workflow <> ALL(%(workflows)s::text[])
            AND build = %(build)s AND live = %(live)s
        ORDER BY started_at + 60 * priority, id LIMIT %(limit)s
    ) q WHERE NOT %(none)s AND t.tenant <> ALL(%(tenants)s::text[])
    UNION ALL
    SELECT p.* FROM (
        SELECT id, tenant, priority, started_at FROM runs
        WHERE state = 'parked' AND wake_at <= %(now)s AND build = %(build)s AND live = %(live)s
            AND (parent <> '' OR NOT %(none)s AND tenant <> ALL(%(tenants)s::text[]) AND workflow <> ALL(%(workflows)s::text[]))
        ORDER BY wake_at LIMIT 1000 + %(limit)s
    ) p
    UNION ALL
    SELECT id, tenant, priority, started_at FROM runs
    WHERE state = 'running' AND owner NOT IN (SELECT id FROM alive) AND build = %(build)s AND live = %(live)s
        AND (parent <> '' OR NOT %(none)s AND tenant <> ALL(%(tenants)s::text[]) AND workflow <> ALL(%(workflows)s::text[]))
),
busy AS (
    SELECT tenant, count(*) AS running FROM runs
    WHERE state = 'running' AND owner IN (SELECT id FROM alive) GROUP BY tenant
),
ranked AS (
    SELECT due.id, due.started_at + 60 * due.priority AS rank, coalesce(busy.running, 0)
        + row_number() OVER (PARTITION BY due.tenant ORDER BY due.started_at + 60 * due.priority, due.id) AS place
    FROM due LEFT JOIN busy USING (tenant)
)
SELECT {columns} FROM runs JOIN ranked ON ranked.id = runs.id AND runs.state <> 'ended'
ORDER BY ranked.place, ranked.rank, ranked.id
LIMIT %(limit)s
{lock}
