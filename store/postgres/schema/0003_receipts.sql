-- +goose Up
-- Receipts: what providers call our messages, and what they report of messages that nobody knows yet.
--
-- A provider may write what it likes: its references are bytes and not text, which could hold neither a zero nor a byte
-- that is not UTF-8, and would be compared by the language of the database.

-- Where a receipt finds its message. Read by whoever works across tenants, and by nobody else. Retention removes what is
-- older than the oldest message: ids grow with time, so that a BRIN index tells where those rows are.
CREATE TABLE provider_refs (
    account bigint NOT NULL,
    ref     bytea  NOT NULL,
    id      uuid   NOT NULL,
    PRIMARY KEY (account, ref)
) WITH (fillfactor = 90);

CREATE INDEX provider_refs_id ON provider_refs USING brin (id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE parked (
    account bigint NOT NULL,
    ref     bytea  NOT NULL,
    digest  bytea  NOT NULL,
    since   bigint NOT NULL,                   -- when it came
    until   bigint NOT NULL,                   -- dropped after it
    receipt text   NOT NULL,                   -- JSON
    PRIMARY KEY (account, ref, digest)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

CREATE INDEX parked_until ON parked (until);

-- How many rows of parked an account has: to count up to a hundred thousand of them for each receipt would let a flood
-- of forged ones stop the true ones.
CREATE TABLE parked_counts (
    account bigint PRIMARY KEY,
    n       bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The latest time that anybody has told.
CREATE TABLE clock (
    n    integer PRIMARY KEY,
    seen bigint  NOT NULL
) WITH (fillfactor = 10);

-- +goose StatementBegin
DO $$
DECLARE
    system constant text := '((SELECT current_setting(''msgctl.tenant'', true)) = ''-1'')';
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['provider_refs', 'parked', 'parked_counts', 'clock']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY scope ON %I USING %s WITH CHECK %s', t, system, system);
    END LOOP;
    -- A tenant may see what waits for messages of the accounts that it has configured.
    CREATE POLICY own ON parked FOR SELECT USING (account IN (SELECT i.n FROM account_ids i JOIN accounts a ON a.id = i.id
        WHERE a.tenant::text = (SELECT current_setting('msgctl.tenant', true))));
END
$$;
-- +goose StatementEnd
