INSERT INTO kept (id, run, data, crc) VALUES (?, ?, ?, ?)
