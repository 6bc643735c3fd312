-- Times are Unix milliseconds, 0 or NULL for "none". Tenants, accounts and campaigns are interned as small integers.

CREATE TABLE tenants (
    n            INTEGER PRIMARY KEY,          -- from 1; 0 stands for delivery.Shared and has no row
    slug         TEXT    NOT NULL UNIQUE,
    name         TEXT    NOT NULL,
    daily_quota  INTEGER NOT NULL,
    rates        TEXT    NOT NULL,             -- JSON
    on_ambiguous TEXT    NOT NULL,
    data_key     BLOB,
    region       TEXT    NOT NULL,
    created      INTEGER NOT NULL,
    accepted     INTEGER NOT NULL DEFAULT 0    -- messages ever accepted, moved with the rows
);

CREATE TABLE usage (
    tenant INTEGER NOT NULL,
    day    INTEGER NOT NULL,                   -- days since 1970-01-01 UTC
    n      INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) WITHOUT ROWID;

CREATE TABLE api_keys (
    id      BLOB    PRIMARY KEY,
    tenant  INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    mode    TEXT    NOT NULL,
    admin   INTEGER NOT NULL,
    hash    BLOB    NOT NULL UNIQUE,
    hint    TEXT    NOT NULL,
    created INTEGER NOT NULL,
    revoked INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX api_keys_tenant ON api_keys (tenant, id);

-- The hot row. Ids are UUIDv7, so inserts go to the end of the table and a tenant's newest come last.
CREATE TABLE messages (
    id          BLOB    PRIMARY KEY,
    tenant      INTEGER NOT NULL,
    channel     INTEGER NOT NULL,
    lane        INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    q           INTEGER NOT NULL,              -- tenant<<8|channel<<4|lane while claimable, 0 while sending or ambiguous
    due         INTEGER,                       -- NULL = nothing to do
    node        TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    flags       INTEGER NOT NULL,
    account     INTEGER NOT NULL,
    campaign    INTEGER,                       -- NULL = none
    recipient   TEXT    NOT NULL,
    provider_id TEXT    NOT NULL,
    client_ref  TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    segments    INTEGER NOT NULL,
    accepted    INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    facts       BLOB    NOT NULL,              -- ledger sequences, delta-coded varints
    seen        BLOB                           -- digests of applied receipts, 8 bytes each
) WITHOUT ROWID;

CREATE INDEX messages_due      ON messages (q, due)          WHERE due IS NOT NULL;
CREATE INDEX messages_tenant   ON messages (tenant, id);
CREATE INDEX messages_campaign ON messages (campaign, id)    WHERE campaign IS NOT NULL;
CREATE INDEX messages_held     ON messages (reason, account) WHERE status = 3;

CREATE TABLE payloads (
    id   BLOB PRIMARY KEY,
    body BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE account_ids (
    n  INTEGER PRIMARY KEY,                    -- outlives the account: messages keep naming it
    id BLOB NOT NULL UNIQUE
);

CREATE TABLE tally (
    tenant   INTEGER NOT NULL,
    campaign INTEGER NOT NULL,                 -- 0 = messages of no campaign
    channel  INTEGER NOT NULL,
    status   INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (tenant, campaign, channel, status)
) WITHOUT ROWID;

CREATE TABLE ledger (
    seq    INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    prev   BLOB    NOT NULL,                   -- hash of the tenant's row before this one
    hash   BLOB    NOT NULL,
    facts  BLOB    NOT NULL
);

CREATE INDEX ledger_tenant ON ledger (tenant, seq);

CREATE TABLE idempotency (
    tenant      INTEGER NOT NULL,
    route       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    expires     INTEGER NOT NULL,
    results     BLOB    NOT NULL,
    PRIMARY KEY (tenant, route, key)
) WITHOUT ROWID;

CREATE INDEX idempotency_expires ON idempotency (expires);

CREATE TABLE provider_refs (
    account INTEGER NOT NULL,
    ref     TEXT    NOT NULL,
    id      BLOB    NOT NULL,
    PRIMARY KEY (account, ref)
) WITHOUT ROWID;

CREATE TABLE parked (
    account INTEGER NOT NULL,
    ref     TEXT    NOT NULL,
    digest  BLOB    NOT NULL,
    until   INTEGER NOT NULL,
    receipt TEXT    NOT NULL,                  -- JSON
    PRIMARY KEY (account, ref, digest)
) WITHOUT ROWID;

CREATE INDEX parked_until ON parked (until);

CREATE TABLE suppressions (
    tenant    INTEGER NOT NULL,
    recipient TEXT    NOT NULL,
    channel   INTEGER NOT NULL,                -- 0 = every channel
    reason    TEXT    NOT NULL,
    source    TEXT    NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (tenant, recipient, channel)
) WITHOUT ROWID;

CREATE TABLE campaigns (
    n        INTEGER PRIMARY KEY,
    id       BLOB    NOT NULL UNIQUE,
    tenant   INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    state    TEXT    NOT NULL,
    audience TEXT    NOT NULL,
    legs     TEXT    NOT NULL,                 -- JSON
    rate     REAL    NOT NULL,
    ttl      INTEGER NOT NULL,                 -- milliseconds
    people   INTEGER NOT NULL,
    cursor   INTEGER NOT NULL,
    expanded INTEGER NOT NULL,
    skipped  TEXT    NOT NULL,                 -- JSON
    created  INTEGER NOT NULL,
    started  INTEGER NOT NULL,
    ended    INTEGER NOT NULL,
    UNIQUE (tenant, name)
);

CREATE TABLE audiences (
    n           INTEGER PRIMARY KEY,
    tenant      INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    ready       INTEGER NOT NULL,
    people      INTEGER NOT NULL,
    rows        INTEGER NOT NULL,
    left_out    TEXT    NOT NULL,              -- JSON
    columns     TEXT    NOT NULL,              -- JSON
    created     INTEGER NOT NULL,
    reject_file TEXT    NOT NULL,
    UNIQUE (tenant, name)
);

CREATE TABLE people (
    audience INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    address  TEXT    NOT NULL,                 -- the first of phone, email and url: no two people share it
    phone    TEXT    NOT NULL,
    email    TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    channel  INTEGER NOT NULL,
    vars     TEXT    NOT NULL,
    PRIMARY KEY (audience, seq)
) WITHOUT ROWID;

CREATE UNIQUE INDEX people_address ON people (audience, address);

CREATE TABLE templates (
    tenant   INTEGER NOT NULL,
    name     TEXT    NOT NULL,
    version  INTEGER NOT NULL,
    channel  INTEGER NOT NULL,
    text     TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    html     TEXT    NOT NULL,
    approved TEXT    NOT NULL,                 -- JSON, '' = none
    event    TEXT    NOT NULL,
    data     TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, version)
) WITHOUT ROWID;

CREATE TABLE accounts (
    id           BLOB    PRIMARY KEY,
    tenant       INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    channel      INTEGER NOT NULL,
    settings     TEXT    NOT NULL,             -- JSON
    sealed       BLOB,
    secret_names TEXT    NOT NULL,             -- JSON
    priority     INTEGER NOT NULL,
    rate         REAL    NOT NULL,
    burst        REAL    NOT NULL,
    paused       INTEGER NOT NULL,
    pause_reason TEXT    NOT NULL,
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    UNIQUE (tenant, name)
) WITHOUT ROWID;

CREATE TABLE probe (
    n  INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
);
