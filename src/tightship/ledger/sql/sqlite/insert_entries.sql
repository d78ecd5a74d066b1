INSERT INTO entries (id, run, data) VALUES {rows}
