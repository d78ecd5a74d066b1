SELECT id, data, crc FROM bundles
WHERE id IN (SELECT bundle FROM bundle_runs WHERE run IN (SELECT value FROM json_each(?)))
ORDER BY id
