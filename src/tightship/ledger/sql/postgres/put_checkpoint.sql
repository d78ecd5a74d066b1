INSERT INTO checkpoints (log, size, note) VALUES (%s, %s, %s) ON CONFLICT (log, size) DO UPDATE SET note = excluded.note
