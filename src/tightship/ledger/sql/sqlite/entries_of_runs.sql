SELECT id, run, data, crc FROM entries WHERE run IN (SELECT value FROM json_each(?)) ORDER BY id
