INSERT INTO rate_levels (name, requests, tokens, at)
VALUES (%(name)s, %(most_requests)s, %(most_tokens)s, extract(epoch FROM clock_timestamp()))
ON CONFLICT (name) DO NOTHING
