-- Jobs that nobody will end: of workers that were lost, and in queues of builds that no worker has.
DELETE FROM procrastinate_jobs
WHERE status = 'doing' AND worker_id IS NULL
    OR status = 'todo' AND queue_name NOT IN (SELECT job_queue(build) FROM workers UNION ALL SELECT job_queue('general'))
    OR status NOT IN ('todo', 'doing') AND id NOT IN (
        SELECT job_id FROM procrastinate_events WHERE at > now() - interval '1 day'
    )
