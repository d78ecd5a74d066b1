SELECT id, name, head FROM logs
