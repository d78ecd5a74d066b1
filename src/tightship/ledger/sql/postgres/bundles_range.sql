SELECT id, data, crc FROM bundles WHERE id > %s AND id <= %s ORDER BY id LIMIT %s
