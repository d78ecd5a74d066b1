INSERT OR IGNORE INTO payloads (address, scope, data) VALUES {rows}
