INSERT INTO workers (id, host, pid, build, started_at, beat_at)
SELECT %s, %s, %s, %s, now, now FROM extract(epoch FROM clock_timestamp()) AS now
RETURNING number
