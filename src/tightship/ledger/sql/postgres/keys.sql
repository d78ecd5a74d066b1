SELECT name, wrapped, created FROM keys WHERE name = ANY(%s::text[])
