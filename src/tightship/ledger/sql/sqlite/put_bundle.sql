INSERT INTO bundles (id, data, crc) VALUES (?, ?, ?)
