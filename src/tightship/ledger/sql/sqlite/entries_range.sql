SELECT id, run, data, crc FROM entries WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
