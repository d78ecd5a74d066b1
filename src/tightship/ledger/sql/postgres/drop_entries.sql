DELETE FROM entries WHERE id >= %s AND id < %s
