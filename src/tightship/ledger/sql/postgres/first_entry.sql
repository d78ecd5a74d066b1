SELECT min(id) FROM entries WHERE id > %s AND id <= %s
