-- The generic cell rate algorithm in one statement: the row lock puts bookings in order, and one that waited for it
-- is judged by what it then finds (READ COMMITTED). A rate that is NULL is no limit: greatest() passes over it.
UPDATE rate_levels AS level
SET (requests, tokens, at, booked, wait) = (
    SELECT
        CASE WHEN fits.booked
            THEN least(p.most_requests, held.requests + due.need * coalesce(p.per_second, 0)) - p.requests
            ELSE held.requests END,
        CASE WHEN fits.booked
            THEN least(p.most_tokens, held.tokens + due.need * coalesce(p.per_token, 0)) - p.tokens
            ELSE held.tokens END,
        CASE WHEN fits.booked THEN held.at + due.need ELSE held.at END,
        fits.booked,
        fits.wait
    FROM (
        SELECT
            extract(epoch FROM clock_timestamp())::float8 AS now,
            %(per_second)s::float8 AS per_second, %(per_minute)s::float8 / 60 AS per_token,
            %(most_requests)s::float8 AS most_requests, %(most_tokens)s::float8 AS most_tokens,
            %(requests)s::float8 AS requests, %(tokens)s::float8 AS tokens, %(within)s::float8 AS within,
            %(owed_requests)s::float8 AS owed_requests, %(owed_tokens)s::float8 AS owed_tokens,
            %(pause)s::float8 AS pause
    ) AS p,
    LATERAL (SELECT greatest(0, p.now - level.at) AS seconds) AS passed,
    LATERAL (
        SELECT
            least(p.most_requests, level.requests + passed.seconds * coalesce(p.per_second, 0))
                - p.owed_requests AS requests,
            least(
                p.most_tokens,
                least(p.most_tokens, level.tokens + passed.seconds * coalesce(p.per_token, 0)) - p.owed_tokens
            ) AS tokens,
            greatest(level.at, p.now) AS at
    ) AS filled,
    LATERAL (
        SELECT
            CASE WHEN p.pause > 0 THEN least(filled.requests, 1) ELSE filled.requests END AS requests,
            filled.tokens,
            CASE WHEN p.pause > 0 THEN greatest(filled.at, p.now + p.pause) ELSE filled.at END AS at
    ) AS held,
    LATERAL (
        SELECT greatest(
            0,
            (least(p.requests, p.most_requests) - held.requests) / p.per_second,
            (least(p.tokens, p.most_tokens) - held.tokens) / p.per_token
        ) AS need
    ) AS due,
    LATERAL (
        SELECT
            held.at - p.now + due.need AS wait,
            p.requests > 0 AND held.at - p.now + due.need <= p.within + 1e-6 AS booked
    ) AS fits
)
WHERE level.name = %(name)s
RETURNING booked, wait
