SELECT name, wrapped, created FROM keys WHERE name = %s
