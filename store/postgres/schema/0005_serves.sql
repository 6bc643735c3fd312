-- +goose Up
-- The oldest version of which a program may work with this schema. A migration that takes away what an older program
-- uses raises it; one that only adds does not. Programs of version 4 and before do not read it.
CREATE TABLE schema_serves (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint  NOT NULL
);

INSERT INTO schema_serves (version) VALUES (5);
