-- Network connectors and their versions.
CREATE TABLE connectors (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    doc TEXT NOT NULL,
    UNIQUE (account, region, name)
) WITHOUT ROWID;
CREATE INDEX connectors_by_account ON connectors (account, region, id);
CREATE INDEX connectors_by_state ON connectors (account, region, state, id);

CREATE TABLE connector_versions (
    connector TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (connector, version)
) WITHOUT ROWID;

-- Which MicroVMs that are not terminated are bound to which versions.
CREATE TABLE connector_uses (
    connector TEXT NOT NULL,
    version INTEGER NOT NULL,
    microvm TEXT NOT NULL,
    PRIMARY KEY (connector, version, microvm)
) WITHOUT ROWID;
CREATE INDEX connector_uses_by_microvm ON connector_uses (microvm);
