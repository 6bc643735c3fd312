-- +goose Up
-- Partitions: made ahead of time, and what is known of those that retention has dropped.

-- Up to where a tenant's past has been removed. Its ledger goes on from the row seq, whose hash was this one.
CREATE TABLE cuts (
    tenant bigint  PRIMARY KEY,
    seq    bigint  NOT NULL,
    hash   bytea   NOT NULL,
    day    integer NOT NULL,                   -- ledger rows of earlier days are gone
    before uuid    NOT NULL                    -- messages with a lower id are gone
);

-- How the messages that are gone had ended, so that the books can still be proved.
CREATE TABLE cut_tally (
    tenant   bigint   NOT NULL,
    campaign bigint   NOT NULL,
    channel  smallint NOT NULL,
    status   smallint NOT NULL,
    n        bigint   NOT NULL,
    PRIMARY KEY (tenant, campaign, channel, status)
);

-- Days whose partitions have been detached and are still to be counted into cut_tally and dropped. As long as there are
-- any, the books do not add up.
CREATE TABLE retired (
    first  integer PRIMARY KEY,
    last   integer NOT NULL,
    tables text[]  NOT NULL
);

-- +goose StatementBegin
DO $$
DECLARE
    own text := '(tenant = (SELECT nullif(current_setting(''msgctl.tenant'', true), '''')::bigint)
        OR (SELECT current_setting(''msgctl.tenant'', true)) = ''-1'')';
    t   text;
BEGIN
    FOREACH t IN ARRAY ARRAY['cuts', 'cut_tally']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY scope ON %I USING %s WITH CHECK %s', t, own, own);
    END LOOP;
    ALTER TABLE retired ENABLE ROW LEVEL SECURITY;
    ALTER TABLE retired FORCE ROW LEVEL SECURITY;
    CREATE POLICY scope ON retired USING ((SELECT current_setting('msgctl.tenant', true)) <> '');
    -- Partitions are reached through their parents. Without a policy, whoever is let in by mistake sees nothing.
    FOREACH t IN ARRAY ARRAY['messages', 'payloads', 'labels', 'legs', 'ledger']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t || '_default');
    END LOOP;
END
$$;
-- +goose StatementEnd

-- The lowest id of a UTC day: an id begins with the 48 bits of its Unix milliseconds.
-- +goose StatementBegin
CREATE FUNCTION msgctl_first_id(day integer) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (lpad(to_hex(day::bigint * 86400000), 12, '0') || repeat('0', 20))::uuid
$$;
-- +goose StatementEnd

-- Which days the partitions of a table hold: from first until before last. Their names say it.
-- +goose StatementBegin
CREATE FUNCTION msgctl_partitions(parent text) RETURNS TABLE (name text, first integer, last integer)
LANGUAGE sql STABLE AS $$
    SELECT c.relname::text, to_date(d[1], 'YYYYMMDD') - '1970-01-01'::date,
        to_date(d[2], 'YYYYMMDD') - '1970-01-01'::date
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
        LATERAL regexp_match(c.relname::text, '_([0-9]{8})_([0-9]{8})$') d
    WHERE i.inhparent = to_regclass(parent) AND d IS NOT NULL
    ORDER BY 2
$$;
-- +goose StatementEnd

-- Makes the partitions for the days from first until before last, each of span days, where there are none yet, and
-- returns how many tables it has made. What lies in the default partition meanwhile moves along. The engine's role may
-- call it, although only the owner may make tables; so it makes nothing else. To attach a table it needs the default
-- partition for itself for a moment: when somebody uses that for longer, it gives up at once, because whoever comes
-- after it would have to wait as well.
-- +goose StatementBegin
DO $do$
BEGIN
EXECUTE format($create$
CREATE FUNCTION msgctl_make_partitions(first integer, last integer, span integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = %I, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    parent  text;
    options text;
    part    text;
    low     integer;
    high    integer;
    bounds  text;
    made    integer := 0;
BEGIN
    IF first IS NULL OR last IS NULL OR span IS NULL OR span NOT BETWEEN 1 AND 366 OR last - first NOT BETWEEN 0 AND 800
        OR first NOT BETWEEN 0 AND 100000 THEN
        RAISE EXCEPTION 'partitions of %% days from day %% until day %%: at most 366 days each, and 800 in all',
            span, first, last USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(77204, 0);
    FOREACH parent IN ARRAY ARRAY['messages', 'payloads', 'labels', 'legs', 'ledger']
    LOOP
        SELECT coalesce('WITH (' || array_to_string(reloptions, ', ') || ')', '') INTO options
            FROM pg_class WHERE oid = to_regclass(parent || '_default');
        low := first - first %% span;
        WHILE low < last
        LOOP
            -- Spans of another length may be there already: only what lies between them is made.
            SELECT max(p.last) INTO high FROM msgctl_partitions(parent) p WHERE p.first <= low AND p.last > low;
            IF high IS NOT NULL THEN
                low := high;
                CONTINUE;
            END IF;
            high := low - low %% span + span;
            SELECT least(high, min(p.first)) INTO high FROM msgctl_partitions(parent) p WHERE p.first > low;
            part := format('%%s_%%s_%%s', parent, to_char('1970-01-01'::date + low, 'YYYYMMDD'),
                to_char('1970-01-01'::date + high, 'YYYYMMDD'));
            bounds := CASE parent WHEN 'ledger' THEN format('day >= %%s AND day < %%s', low, high)
                ELSE format('id >= %%L AND id < %%L', msgctl_first_id(low), msgctl_first_id(high)) END;
            EXECUTE format('CREATE TABLE %%I (LIKE %%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) %%s', part, parent,
                options);
            EXECUTE format('ALTER TABLE %%I ENABLE ROW LEVEL SECURITY', part);
            EXECUTE format('REVOKE ALL ON %%I FROM PUBLIC', part);
            -- It is empty as a rule, and then this costs nothing.
            EXECUTE format('WITH moved AS (DELETE FROM %%I WHERE %%s RETURNING *) INSERT INTO %%I SELECT * FROM moved',
                parent || '_default', bounds, part);
            EXECUTE format('ALTER TABLE %%I ATTACH PARTITION %%I FOR VALUES FROM (%%L) TO (%%L)', parent, part,
                CASE parent WHEN 'ledger' THEN low::text ELSE msgctl_first_id(low)::text END,
                CASE parent WHEN 'ledger' THEN high::text ELSE msgctl_first_id(high)::text END);
            made := made + 1;
            low := high;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$
$create$, current_schema());
END
$do$;
-- +goose StatementEnd

-- How many rows lie in default partitions, at most a thousand of each: there they are safe, and are never dropped.
-- +goose StatementBegin
DO $do$
BEGIN
EXECUTE format($create$
CREATE FUNCTION msgctl_strays() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = %I, pg_temp AS $$
    SELECT (SELECT count(*) FROM (SELECT FROM messages_default LIMIT 1000) m)
        + (SELECT count(*) FROM (SELECT FROM ledger_default LIMIT 1000) l)
$$
$create$, current_schema());
END
$do$;
-- +goose StatementEnd

REVOKE EXECUTE ON FUNCTION msgctl_make_partitions(integer, integer, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION msgctl_strays() FROM PUBLIC;

-- Some days ahead; the engine goes on from there.
SELECT msgctl_make_partitions((now() AT TIME ZONE 'UTC')::date - '1970-01-01'::date,
    (now() AT TIME ZONE 'UTC')::date - '1970-01-01'::date + 4, 1);
