DELETE FROM payloads WHERE address = ?
