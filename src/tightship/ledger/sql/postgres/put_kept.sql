INSERT INTO kept (id, run, data, crc) SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[])
