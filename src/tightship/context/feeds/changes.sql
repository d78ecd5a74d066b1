-- The changes of {table} for the feed {feed} of the shared context. Run it once, as the owner of the table.
-- Whoever reads the feed needs no more than this:
--     GRANT USAGE ON SCHEMA {schema} TO reader; GRANT SELECT, DELETE ON {schema}.tightship_changes TO reader;
BEGIN;

CREATE TABLE IF NOT EXISTS {schema}.tightship_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery uuid NOT NULL DEFAULT gen_random_uuid(),
    feed text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    change jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS tightship_changes_feed ON {schema}.tightship_changes (feed, id);

CREATE OR REPLACE FUNCTION {schema}.tightship_note_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $note$
BEGIN
    INSERT INTO {schema}.tightship_changes (feed, change) VALUES (
        TG_ARGV[0], jsonb_build_object('op', lower(TG_OP), 'new', to_jsonb(NEW), 'old', to_jsonb(OLD))
    );
    PERFORM pg_notify('tightship_changes', '');
    RETURN NULL;
END
$note$;

-- A TRUNCATE takes all rows at once: each is noted as deleted, while it is still there.
CREATE OR REPLACE FUNCTION {schema}.tightship_note_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $note$
BEGIN
    EXECUTE format(
        'INSERT INTO {schema}.tightship_changes (feed, change)'
        ' SELECT %L, jsonb_build_object(''op'', ''delete'', ''new'', NULL, ''old'', to_jsonb(gone)) FROM %I.%I AS gone',
        TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME
    );
    PERFORM pg_notify('tightship_changes', '');
    RETURN NULL;
END
$note$;

DROP TRIGGER IF EXISTS "tightship_{feed}" ON {table};
CREATE TRIGGER "tightship_{feed}" AFTER INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION {schema}.tightship_note_change('{feed}');
DROP TRIGGER IF EXISTS "tightship-truncate_{feed}" ON {table};
CREATE TRIGGER "tightship-truncate_{feed}" BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.tightship_note_truncate('{feed}');

-- What is there already; making the trigger has locked the table, so that nothing falls in between.
INSERT INTO {schema}.tightship_changes (feed, change)
    SELECT '{feed}', jsonb_build_object('op', 'read', 'new', to_jsonb(there), 'old', NULL) FROM {table} AS there;

COMMIT;
