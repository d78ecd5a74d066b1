SELECT id, run, data, crc FROM kept WHERE run IN (SELECT value FROM json_each(?1))
UNION ALL
SELECT id, run, data, crc FROM entries WHERE run IN (SELECT value FROM json_each(?1))
ORDER BY id
