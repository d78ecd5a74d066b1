-- Which of Procrastinate's own migrations its tables have seen.
CREATE TABLE job_migrations (name text NOT NULL PRIMARY KEY)
