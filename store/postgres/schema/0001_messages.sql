-- +goose Up
-- Messages: what is sent, its legs and lines, its history and its counts.
--
-- Times are Unix milliseconds, 0 or NULL for "none". Tenants, accounts and campaigns are interned as numbers, see 0002.
--
-- Locks are taken in this order, and each kind in the order of its key, so that transactions do not wait in circles:
-- a row of campaigns, the lines of ordering keys (advisory, by stripe), a provider account against receipts
-- that come too early (advisory), rows of messages by id, rows of ledger_heads by tenant, changes_head. Whatever else a
-- transaction writes for a tenant, it writes while it holds that tenant's row of ledger_heads.

-- The hot row. Ids are UUIDv7: their first 48 bits are the time, so a partition holds the messages of some days. The
-- default partition takes what no other one does. Storage parameters belong to partitions: whoever makes one gives it
-- those of messages_default.
CREATE TABLE messages (
    id          uuid     NOT NULL,
    tenant      bigint   NOT NULL,
    q           bigint   NOT NULL,             -- tenant<<8|channel<<4|lane while claimable, 0 while sending or ambiguous
    due         bigint,                        -- NULL = nothing to do
    flags       bigint   NOT NULL,
    account     bigint   NOT NULL,
    campaign    bigint,                        -- NULL = none
    accepted    bigint   NOT NULL,
    updated     bigint   NOT NULL,
    expires     bigint   NOT NULL,
    epoch       integer  NOT NULL,
    attempts    integer  NOT NULL,
    segments    integer  NOT NULL,
    channel     smallint NOT NULL,
    lane        smallint NOT NULL,
    status      smallint NOT NULL,
    node        text     NOT NULL,
    recipient   text     COLLATE "C" NOT NULL,
    provider_id text     NOT NULL,
    client_ref  text     NOT NULL,
    reason      text     COLLATE "C" NOT NULL,
    detail      text     NOT NULL,
    facts       bytea    NOT NULL,             -- ledger sequences, delta-coded varints
    seen        bytea,                         -- digests of applied receipts, 8 bytes each
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

CREATE TABLE messages_default PARTITION OF messages DEFAULT WITH (fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

CREATE INDEX messages_due         ON messages (q, due, id)       WHERE due IS NOT NULL;
CREATE INDEX messages_tenant      ON messages (tenant, id);
CREATE INDEX messages_campaign    ON messages (campaign, id)     WHERE campaign IS NOT NULL;
-- Of a large campaign few messages may still wait: who pauses it must not look through those that are done.
CREATE INDEX messages_waiting     ON messages (campaign, id)     WHERE campaign IS NOT NULL AND status BETWEEN 1 AND 4;
CREATE INDEX messages_held        ON messages (reason, account)  WHERE status = 3;
CREATE INDEX messages_held_tenant ON messages (reason, tenant)   WHERE status = 3;

CREATE TABLE payloads (
    id     uuid   NOT NULL,
    tenant bigint NOT NULL,
    body   bytea  NOT NULL,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

CREATE TABLE payloads_default PARTITION OF payloads DEFAULT;

-- Of messages that have any of them.
CREATE TABLE labels (
    id           uuid   NOT NULL,
    tenant       bigint NOT NULL,
    category     text   NOT NULL,
    tag          text   NOT NULL,
    ordering_key text   NOT NULL,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

CREATE TABLE labels_default PARTITION OF labels DEFAULT;

-- The legs of messages that have more than one. The current leg's address, account and provider id stand in the
-- message too; body is the payload of a leg that has not begun, whose place is then in payloads.
CREATE TABLE legs (
    id        uuid     NOT NULL,
    n         smallint NOT NULL,               -- from 0
    channel   smallint NOT NULL,
    success   smallint NOT NULL,               -- the status it must reach
    status    smallint NOT NULL,               -- 0 = not begun
    segments  integer  NOT NULL,
    epoch     integer  NOT NULL,               -- of its last claim
    tenant    bigint   NOT NULL,
    account   bigint   NOT NULL,               -- pinned, or last chosen
    within    bigint   NOT NULL,               -- milliseconds, 0 = no limit
    until     bigint   NOT NULL,               -- deadline, 0 = none or not begun
    pinned    boolean  NOT NULL,
    winner    boolean  NOT NULL,
    recipient text     NOT NULL,
    reason    text     NOT NULL,
    provider  text     NOT NULL,
    body      bytea    NOT NULL,
    PRIMARY KEY (id, n)
) PARTITION BY RANGE (id);

CREATE TABLE legs_default PARTITION OF legs DEFAULT WITH (fillfactor = 80);

-- Unfinished messages with an ordering key, each line in its order: all but the first are held.
CREATE TABLE ordered (
    tenant       bigint   NOT NULL,
    channel      smallint NOT NULL,
    recipient    text     COLLATE "C" NOT NULL,
    ordering_key text     COLLATE "C" NOT NULL,
    place        bigint   NOT NULL,
    id           uuid     NOT NULL UNIQUE,
    due          bigint   NOT NULL,            -- its own due time
    stripe       integer  NOT NULL,            -- of the lock on its line: lines of a tenant share a few
    PRIMARY KEY (tenant, channel, recipient, ordering_key, place)
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- Messages that are failed, expired or unknown and that nobody has put away.
CREATE TABLE dead (
    tenant bigint NOT NULL,
    id     uuid   NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- A row per tenant, made with the tenant: the end of its ledger. Its lock is what puts a tenant's commits in order.
CREATE TABLE ledger_heads (
    tenant   bigint PRIMARY KEY,
    seq      bigint NOT NULL DEFAULT 0,        -- of its last ledger row
    accepted bigint NOT NULL DEFAULT 0,        -- messages ever accepted, moved with the rows
    hash     bytea  NOT NULL DEFAULT decode(repeat('00', 32), 'hex')
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- The history. A tenant's sequences have no gap and are given in the order of commits.
CREATE TABLE ledger (
    tenant bigint  NOT NULL,
    seq    bigint  NOT NULL,
    day    integer NOT NULL,                   -- UTC day of the write, in days since 1970-01-01
    at     bigint  NOT NULL,
    prev   bytea   NOT NULL,                   -- hash of the tenant's row before this one
    hash   bytea   NOT NULL,
    facts  bytea   NOT NULL,
    PRIMARY KEY (tenant, seq, day)
) PARTITION BY RANGE (day);

CREATE TABLE ledger_default PARTITION OF ledger DEFAULT;

CREATE TABLE tally (
    tenant   bigint   NOT NULL,
    campaign bigint   NOT NULL,                -- 0 = messages of no campaign
    channel  smallint NOT NULL,
    status   smallint NOT NULL,
    n        bigint   NOT NULL,
    PRIMARY KEY (tenant, campaign, channel, status)
) WITH (fillfactor = 30, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE usage (
    tenant bigint  NOT NULL,
    day    integer NOT NULL,                   -- days since 1970-01-01 UTC
    n      bigint  NOT NULL,
    PRIMARY KEY (tenant, day)
) WITH (fillfactor = 30, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE idempotency (
    tenant      bigint NOT NULL,
    route       text   COLLATE "C" NOT NULL,
    key         text   COLLATE "C" NOT NULL,
    fingerprint bytea  NOT NULL,
    expires     bigint NOT NULL,
    results     bytea  NOT NULL,
    PRIMARY KEY (tenant, route, key)
);

CREATE INDEX idempotency_expires ON idempotency (tenant, expires);

-- The second wall: whatever a statement forgets to say, a transaction sees and writes the rows of its own scope only.
-- The scope is the setting msgctl.tenant of the transaction: a tenant's number, -1 for work across tenants, and nothing
-- at all shows nothing. The sub-selects make it one evaluation per statement. Partitions are reached through their
-- parents only: nobody is granted anything on them.
-- +goose StatementBegin
DO $$
DECLARE
    own text := '(tenant = (SELECT nullif(current_setting(''msgctl.tenant'', true), '''')::bigint)
        OR (SELECT current_setting(''msgctl.tenant'', true)) = ''-1'')';
    t   text;
BEGIN
    FOREACH t IN ARRAY ARRAY['messages', 'payloads', 'labels', 'legs', 'ordered', 'dead', 'ledger_heads', 'ledger',
        'tally', 'usage', 'idempotency']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('CREATE POLICY scope ON %I USING %s WITH CHECK %s', t, own, own);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- What Check writes.
CREATE TABLE probe (
    n  integer PRIMARY KEY,
    at bigint  NOT NULL
) WITH (fillfactor = 10);
