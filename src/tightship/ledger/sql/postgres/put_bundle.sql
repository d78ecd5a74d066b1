INSERT INTO bundles (id, data, crc) VALUES (%s, %s, %s)
