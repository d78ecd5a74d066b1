SELECT id, run, data, crc FROM kept WHERE id > %s AND id <= %s ORDER BY id LIMIT %s
