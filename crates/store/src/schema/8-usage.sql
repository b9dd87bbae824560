-- What MicroVMs have used; it goes with their records.
CREATE TABLE usage (
    microvm TEXT PRIMARY KEY,
    doc TEXT NOT NULL
) WITHOUT ROWID;
