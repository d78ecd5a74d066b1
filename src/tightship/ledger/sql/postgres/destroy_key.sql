INSERT INTO keys (name, wrapped, created) VALUES (%s, '', 0)
ON CONFLICT (name) DO UPDATE SET wrapped = excluded.wrapped, created = excluded.created
