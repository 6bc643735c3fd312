-- How often a tenant's row was written: a change that was made of an older row is refused.

ALTER TABLE tenants ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
