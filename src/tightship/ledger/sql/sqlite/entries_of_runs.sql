SELECT id, run, data FROM entries WHERE run IN (SELECT value FROM json_each(?)) ORDER BY id
