INSERT INTO checkpoints (log, size, note) VALUES (?, ?, ?) ON CONFLICT (log, size) DO UPDATE SET note = excluded.note
