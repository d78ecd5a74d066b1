SELECT data FROM entries WHERE id = %s
