INSERT INTO tiles (log, level, position, data)
SELECT %s::bigint, * FROM unnest(%s::bigint[], %s::bigint[], %b::bytea[])
ON CONFLICT (log, level, position) DO UPDATE SET data = excluded.data
