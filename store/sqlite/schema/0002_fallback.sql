-- Ways to fall back to, ordering keys, dead letters, tenants' policies.

ALTER TABLE tenants ADD COLUMN policy TEXT NOT NULL DEFAULT '';  -- JSON: weight, rules and the like; '' = none

-- Of messages that have any of them. Wider rows would make every message dearer.
CREATE TABLE labels (
    id           BLOB PRIMARY KEY,
    category     TEXT NOT NULL,
    tag          TEXT NOT NULL,
    ordering_key TEXT NOT NULL
) WITHOUT ROWID;

-- Messages that are failed, expired or unknown and that nobody has put away. A partial index on messages would say the
-- same, and would make every acceptance, claim and outcome dearer by some percent: it is opened by each.
CREATE TABLE dead (
    tenant INTEGER NOT NULL,
    id     BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;

INSERT INTO dead (tenant, id) SELECT tenant, id FROM messages WHERE status IN (21, 23, 25);

-- The legs of messages that have more than one. The current leg's address, account and provider id stand in the
-- message too; body is the payload of a leg that has not begun, whose place is then in payloads.
CREATE TABLE legs (
    id        BLOB    NOT NULL,
    n         INTEGER NOT NULL,                -- from 0
    channel   INTEGER NOT NULL,
    recipient TEXT    NOT NULL,
    body      BLOB    NOT NULL,
    segments  INTEGER NOT NULL,
    account   INTEGER NOT NULL,                -- pinned, or last chosen
    pinned    INTEGER NOT NULL,
    within    INTEGER NOT NULL,                -- milliseconds, 0 = no limit
    success   INTEGER NOT NULL,                -- the status it must reach
    status    INTEGER NOT NULL,                -- 0 = not begun
    reason    TEXT    NOT NULL,
    provider  TEXT    NOT NULL,
    until     INTEGER NOT NULL,                -- deadline, 0 = none or not begun
    epoch     INTEGER NOT NULL,                -- of its last claim
    winner    INTEGER NOT NULL,
    PRIMARY KEY (id, n)
) WITHOUT ROWID;

-- Unfinished messages with an ordering key, each line in its order: all but the first are held.
CREATE TABLE ordered (
    tenant       INTEGER NOT NULL,
    channel      INTEGER NOT NULL,
    recipient    TEXT    NOT NULL,
    ordering_key TEXT    NOT NULL,
    place        INTEGER NOT NULL,
    id           BLOB    NOT NULL,
    due          INTEGER NOT NULL,             -- its own due time
    PRIMARY KEY (tenant, channel, recipient, ordering_key, place)
) WITHOUT ROWID;

ALTER TABLE parked ADD COLUMN since INTEGER NOT NULL DEFAULT 0;  -- when it came

-- 1 while the messages of a campaign are still to be taken along to its new state.
ALTER TABLE campaigns ADD COLUMN moving INTEGER NOT NULL DEFAULT 0;

CREATE TABLE clock (
    n    INTEGER PRIMARY KEY,
    seen INTEGER NOT NULL                      -- the latest time that anybody has told
);

-- A tenant's change wakes what is held of that tenant, and must not look through the others' messages for it.
CREATE INDEX messages_held_tenant ON messages (reason, tenant) WHERE status = 3;
