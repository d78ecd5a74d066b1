INSERT INTO keys (name, wrapped, created) SELECT * FROM unnest(%s::text[], %b::bytea[], %s::double precision[])
ON CONFLICT (name) DO NOTHING
