INSERT INTO logs (id, name, head) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET head = excluded.head
