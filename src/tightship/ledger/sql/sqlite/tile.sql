SELECT data FROM tiles WHERE log = ? AND level = ? AND position = ?
