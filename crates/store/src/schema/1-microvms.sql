-- The columns are what is searched by; `doc` is the whole record as JSON.
CREATE TABLE images (
    arn TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    deleting INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX images_by_account ON images (account, arn);
CREATE INDEX images_deleting ON images (arn) WHERE deleting = 1;

CREATE TABLE versions (
    image TEXT NOT NULL,
    version INTEGER NOT NULL,
    runnable INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (image, version)
) WITHOUT ROWID;
CREATE INDEX versions_runnable ON versions (image, version) WHERE runnable = 1;
CREATE INDEX versions_failed ON versions (image, version) WHERE failed = 1;

CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    image TEXT NOT NULL,
    version INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX builds_by_version ON builds (image, version, id);
CREATE INDEX builds_unfinished ON builds (account, id) WHERE ended = 0;

CREATE TABLE microvms (
    id TEXT PRIMARY KEY,
    endpoint TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    image TEXT NOT NULL,
    version INTEGER NOT NULL,
    terminated_at INTEGER,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX microvms_by_account ON microvms (account, id);
CREATE INDEX microvms_by_image ON microvms (image, id);
CREATE INDEX microvms_by_version ON microvms (image, version, id);
CREATE INDEX microvms_live ON microvms (account, id) WHERE terminated_at IS NULL;
CREATE INDEX microvms_live_by_image ON microvms (image) WHERE terminated_at IS NULL;
CREATE INDEX microvms_by_end ON microvms (terminated_at) WHERE terminated_at IS NOT NULL;

CREATE TABLE tokens (
    account TEXT NOT NULL,
    scope TEXT NOT NULL,
    token TEXT NOT NULL,
    result TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (account, scope, token)
) WITHOUT ROWID;
CREATE INDEX tokens_by_result ON tokens (result);
CREATE INDEX tokens_by_age ON tokens (created_at);
