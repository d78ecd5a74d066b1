SELECT id, run, data, crc FROM entries WHERE id > %s AND id <= %s AND kind = ANY(%s::text[]) ORDER BY id
