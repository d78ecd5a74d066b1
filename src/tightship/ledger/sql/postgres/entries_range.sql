SELECT id, run, data, crc FROM entries WHERE id > %s AND id <= %s ORDER BY id LIMIT %s
