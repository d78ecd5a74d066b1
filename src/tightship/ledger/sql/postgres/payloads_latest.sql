SELECT id, address FROM payloads ORDER BY id DESC LIMIT %s
