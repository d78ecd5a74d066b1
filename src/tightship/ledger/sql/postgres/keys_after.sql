SELECT name, wrapped, created FROM keys WHERE name > %s ORDER BY name LIMIT %s
