SELECT id, data FROM bundles WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
