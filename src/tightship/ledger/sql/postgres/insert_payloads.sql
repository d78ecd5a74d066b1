INSERT INTO payloads (address, scope, data, crc)
SELECT * FROM unnest(%b::bytea[], %b::text[], %b::bytea[], %b::bigint[])
ON CONFLICT (address) DO NOTHING
