-- What each worker holds of the shared envelopes; `closed` once what a lost one had left was given back.
CREATE TABLE loans (
    owner TEXT NOT NULL,
    scope TEXT NOT NULL,
    period TEXT NOT NULL,
    usd BIGINT NOT NULL DEFAULT 0,
    tokens BIGINT NOT NULL DEFAULT 0,
    calls BIGINT NOT NULL DEFAULT 0,
    closed BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (owner, scope, period)
);

-- How far each workflow's schedule was kept: `upto` is its last slot that was dealt with, or when it was first seen.
CREATE TABLE schedules (
    log TEXT NOT NULL,
    workflow TEXT NOT NULL,
    cron TEXT NOT NULL DEFAULT '',
    timezone TEXT NOT NULL DEFAULT '',
    upto DOUBLE PRECISION NOT NULL DEFAULT 0,
    run TEXT NOT NULL DEFAULT '',
    started BIGINT NOT NULL DEFAULT 0,
    missed BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (log, workflow)
);

-- Jobs (Procrastinate's tables, in this schema). Their channels belong to the whole database and are short names.
CREATE FUNCTION job_queue(build text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT left(md5(current_schema()), 12) || '.' || left(build, 16)
$$;

-- Wakes one worker of each build, with the append that made something of it due: one job waits in a queue at most.
-- Whatever is wrong with the jobs, and whoever holds their tables, an append goes on at once.
CREATE FUNCTION wake_builds(builds text[]) RETURNS void LANGUAGE plpgsql SET lock_timeout TO '50ms' AS $$
BEGIN
    IF cardinality(builds) = 0 OR to_regclass('procrastinate_jobs') IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO procrastinate_jobs (queue_name, task_name, queueing_lock)
    SELECT job_queue(build), 'wake', job_queue(build) FROM unnest(builds) AS build
    ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'a wake-up was lost: %', SQLERRM;
END
$$;
