SELECT id, started_at FROM workers WHERE beat_at < extract(epoch FROM clock_timestamp()) - %s ORDER BY id
