SELECT name, id, last, extract(epoch FROM clock_timestamp())::double precision FROM store FOR UPDATE
