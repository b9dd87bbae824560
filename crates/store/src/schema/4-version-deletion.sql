-- Versions that are being deleted while their image stays.
ALTER TABLE versions ADD COLUMN deleting INTEGER NOT NULL DEFAULT 0;
CREATE INDEX versions_deleting ON versions (image, version) WHERE deleting = 1;
-- For counting what of a version still lives, which the index by image alone would do row by row.
CREATE INDEX microvms_live_by_version ON microvms (image, version) WHERE terminated_at IS NULL;
DROP INDEX microvms_live_by_image;
