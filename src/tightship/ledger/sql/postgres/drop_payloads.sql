DELETE FROM payloads WHERE address = ANY(%b::bytea[])
