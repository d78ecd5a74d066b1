WITH stored AS (
    INSERT INTO payloads (address, scope, data, crc)
    SELECT * FROM unnest(%b::bytea[], %b::text[], %b::bytea[], %b::bigint[])
    ON CONFLICT (address) DO NOTHING
),
logged AS (
    INSERT INTO entries (id, run, data, crc, kind)
    SELECT * FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::bigint[], %b::text[])
),
headed AS (
    INSERT INTO logs (id, name, head) SELECT * FROM unnest(%b::bigint[], %b::text[], %b::bigint[])
    ON CONFLICT (id) DO UPDATE SET head = excluded.head
),
dated AS (
    UPDATE store SET last = %s
)
SELECT pg_notify(%s, %s)
