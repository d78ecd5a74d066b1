INSERT INTO bundles (id, data) VALUES (?, ?)
