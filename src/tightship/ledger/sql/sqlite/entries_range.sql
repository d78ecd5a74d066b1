SELECT id, run, data FROM entries WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
