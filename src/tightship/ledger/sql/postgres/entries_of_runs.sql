SELECT id, run, data, crc FROM entries WHERE run = ANY(%s::text[]) ORDER BY id
