DELETE FROM workers WHERE beat_at < extract(epoch FROM clock_timestamp()) - 86400
