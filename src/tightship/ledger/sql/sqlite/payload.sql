SELECT address, scope, data FROM payloads WHERE address IN ({marks})
