-- Ports that need no token, and host names of the operator's own. `subject` is a MicroVM's id or an image's ARN.
CREATE TABLE public_ports (
    subject TEXT PRIMARY KEY,
    doc TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE domains (
    name TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    subject TEXT NOT NULL,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX domains_by_account ON domains (account, name);
CREATE INDEX domains_by_subject ON domains (subject);
