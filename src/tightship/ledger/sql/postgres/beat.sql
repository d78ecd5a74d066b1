UPDATE workers SET beat_at = extract(epoch FROM clock_timestamp()) WHERE id = %s RETURNING beat_at
