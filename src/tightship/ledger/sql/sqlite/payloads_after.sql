SELECT id, address, scope, data, crc FROM payloads WHERE id > ? ORDER BY id LIMIT ?
