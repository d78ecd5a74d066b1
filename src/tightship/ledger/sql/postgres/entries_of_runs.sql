WITH wanted AS (SELECT %s::text[] AS runs)
SELECT id, run, data, crc FROM kept WHERE run = ANY((SELECT runs FROM wanted)::text[])
UNION ALL
SELECT id, run, data, crc FROM entries WHERE run = ANY((SELECT runs FROM wanted)::text[])
ORDER BY id
