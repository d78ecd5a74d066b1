SELECT id, data, crc FROM bundles
WHERE id IN (SELECT bundle FROM bundle_runs WHERE run = ANY(%s::text[]))
ORDER BY id
