SELECT id, address, scope, data FROM payloads WHERE id > ? ORDER BY id LIMIT ?
