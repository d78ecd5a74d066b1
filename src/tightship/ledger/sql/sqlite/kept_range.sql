SELECT id, run, data, crc FROM kept WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
