-- MicroVMs in a table with row ids. Without, SQLite keeps at most a quarter of a page of each in the table's own tree, and
-- put the rest of a record, which is longer, into a page of its own, that every change of it wrote anew.
CREATE TABLE microvm_rows (
    id TEXT NOT NULL UNIQUE,
    endpoint TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    image TEXT NOT NULL,
    version INTEGER NOT NULL,
    terminated_at INTEGER,
    memory_mib INTEGER NOT NULL,
    state TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    doc TEXT NOT NULL
);
INSERT INTO microvm_rows (id, endpoint, account, image, version, terminated_at, memory_mib, state, started_at, doc)
    SELECT id, endpoint, account, image, version, terminated_at, memory_mib, state, started_at, doc
    FROM microvms ORDER BY id;
DROP TABLE microvms;
ALTER TABLE microvm_rows RENAME TO microvms;
CREATE INDEX microvms_by_account ON microvms (account, id, image, version, state, started_at);
CREATE INDEX microvms_by_image ON microvms (image, id, version, state, started_at);
CREATE INDEX microvms_by_version ON microvms (image, version, id, state, started_at);
CREATE INDEX microvms_live ON microvms (account, terminated_at, memory_mib, id) WHERE terminated_at IS NULL;
CREATE INDEX microvms_live_by_version ON microvms (image, version, terminated_at) WHERE terminated_at IS NULL;
CREATE INDEX microvms_by_end ON microvms (terminated_at) WHERE terminated_at IS NOT NULL;
