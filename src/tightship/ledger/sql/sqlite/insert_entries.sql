INSERT INTO entries (id, run, data, crc) VALUES {rows}
