-- What all workers have booked of the declared rates. Operational: no projection of the log, and lost without harm.
-- `requests` and `tokens` are what is left as of `at`, the last moment that was given out (store time, s);
-- `booked` and `wait` are the answer to the last booking.
CREATE TABLE IF NOT EXISTS rate_levels (
    name text PRIMARY KEY,
    requests double precision NOT NULL,
    tokens double precision NOT NULL,
    at double precision NOT NULL,
    booked boolean NOT NULL DEFAULT false,
    wait double precision NOT NULL DEFAULT 0
);
