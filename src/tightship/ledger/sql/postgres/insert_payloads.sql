INSERT INTO payloads (address, scope, data, crc)
SELECT * FROM unnest(%b::bytea[], %s::text[], %b::bytea[], %s::bigint[])
ON CONFLICT (address) DO NOTHING
