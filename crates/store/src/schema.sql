-- The columns are what is searched by; `doc` is the whole record as JSON.
CREATE TABLE images (
    arn TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX images_by_account ON images (account, arn);

CREATE TABLE versions (
    image TEXT NOT NULL,
    version INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (image, version)
) WITHOUT ROWID;

CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    image TEXT NOT NULL,
    version INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX builds_by_version ON builds (image, version, id);

CREATE TABLE microvms (
    id TEXT PRIMARY KEY,
    endpoint TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    image TEXT NOT NULL,
    version INTEGER NOT NULL,
    live INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX microvms_by_account ON microvms (account, id);
CREATE INDEX microvms_by_image ON microvms (image, version, id);
CREATE INDEX microvms_live ON microvms (live, id);

CREATE TABLE tokens (
    account TEXT NOT NULL,
    scope TEXT NOT NULL,
    token TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (account, scope, token)
) WITHOUT ROWID;
CREATE INDEX tokens_by_age ON tokens (created_at);
