INSERT INTO logs (id, name, head) SELECT * FROM unnest(%s::bigint[], %s::text[], %s::bigint[])
ON CONFLICT (id) DO UPDATE SET head = excluded.head
