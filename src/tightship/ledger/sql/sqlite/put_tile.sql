INSERT INTO tiles (log, level, position, data) VALUES (?, ?, ?, ?)
ON CONFLICT (log, level, position) DO UPDATE SET data = excluded.data
