DELETE FROM entries WHERE id >= ? AND id < ?
