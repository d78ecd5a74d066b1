SELECT id, data, crc FROM bundles WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
