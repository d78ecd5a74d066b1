SELECT wake_builds(ARRAY(
    SELECT DISTINCT build FROM runs
    WHERE id = ANY(%s::text[]) AND live = 1 AND (
        state = 'queued' OR state = 'parked' AND wake_at <= extract(epoch FROM clock_timestamp())
    )
))
