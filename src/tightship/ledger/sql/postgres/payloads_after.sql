SELECT id, address, scope, data, crc FROM payloads WHERE id > %s ORDER BY id LIMIT %s
