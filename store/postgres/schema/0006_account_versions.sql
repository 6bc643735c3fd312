-- +goose Up
-- How often an account's row was written: a change that was made of an older row is refused.
ALTER TABLE accounts ADD COLUMN version bigint NOT NULL DEFAULT 1;
