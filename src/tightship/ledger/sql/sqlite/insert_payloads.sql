INSERT OR IGNORE INTO payloads (address, scope, data, crc) VALUES {rows}
