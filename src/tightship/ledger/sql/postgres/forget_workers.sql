-- Who was lost a day ago; with a loan that nobody has given back, once the month that it was lent for is over.
DELETE FROM workers WHERE beat_at < extract(epoch FROM clock_timestamp()) - 86400 AND (
    beat_at < extract(epoch FROM clock_timestamp()) - 32 * 86400
    OR NOT EXISTS (SELECT FROM loans WHERE owner = workers.id AND closed = 0 AND (usd > 0 OR tokens > 0))
)
