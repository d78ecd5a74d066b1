SELECT min(id) FROM entries WHERE id > ? AND id <= ?
