INSERT INTO entries (id, run, data, crc, kind)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::text[])
