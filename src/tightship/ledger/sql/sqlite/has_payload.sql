SELECT 1 FROM payloads WHERE address = ?
