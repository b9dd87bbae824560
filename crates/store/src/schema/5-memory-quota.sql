-- What a MicroVM counts for against its account's quota.
ALTER TABLE microvms ADD COLUMN memory_mib INTEGER NOT NULL DEFAULT 0;
DROP INDEX microvms_live;
CREATE INDEX microvms_live ON microvms (account, memory_mib, id) WHERE terminated_at IS NULL;
