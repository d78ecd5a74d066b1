SELECT address, scope, data FROM payloads WHERE address = ANY(%b::bytea[])
