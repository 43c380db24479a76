BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'trapsync','m001_the_way_of_an_image','2026-11-28 13:53:19.312961+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'trapsync','m002_times_put_right','2026-11-28 13:53:19.323733+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'trapsync','m003_notes_of_destinations','2026-11-28 13:53:19.334664+00:00');
INSERT INTO "_sqlite_migrations" VALUES(4,'trapsync','m004_labels','2026-11-28 13:53:19.340025+00:00');
CREATE TABLE boots (
    boot_id TEXT PRIMARY KEY,
    number INTEGER UNIQUE,          -- their order; NULL: known from its images only
    clock_offset REAL,              -- wall − monotonic when the wall could be trusted; NULL: it never could
    trusted_at REAL                 -- the first such moment, on the wall
) STRICT, WITHOUT ROWID;
CREATE TABLE corrections (
    image_id INTEGER PRIMARY KEY REFERENCES images (id),
    key TEXT NOT NULL UNIQUE,       -- the name that the image is to have, and nobody else
    path TEXT NOT NULL UNIQUE       -- where the file is to lie
) STRICT;
CREATE TABLE deliveries (
    destination TEXT NOT NULL,
    image_id INTEGER NOT NULL REFERENCES images (id),
    state TEXT NOT NULL CHECK (state IN ('owed', 'delivered', 'refused')),
    rank REAL NOT NULL,             -- as in images
    attempts INTEGER NOT NULL DEFAULT 0, -- that failed
    blamed INTEGER NOT NULL DEFAULT 0, -- those of them before which another image passed
    others INTEGER NOT NULL DEFAULT 0, -- how many had passed at the last of them
    wait_boot TEXT,                 -- back-off, as in destinations
    wait_until REAL,
    wait_for REAL,
    error TEXT,                     -- why it is still owed, or why it was refused
    digest TEXT,                    -- the proof: what the destination confirmed
    detail TEXT,                    -- JSON: what the destination wants remembered
    delivered_at REAL,
    PRIMARY KEY (destination, image_id),
    CHECK (state != 'delivered' OR digest IS NOT NULL)
) STRICT, WITHOUT ROWID;
INSERT INTO "deliveries" VALUES('gallery',2,'owed',1782073159.0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "deliveries" VALUES('gallery',4,'owed',1782073157.0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "deliveries" VALUES('gallery',5,'owed',1782073158.0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "deliveries" VALUES('gallery',6,'owed',1.79587399993296527866e+09,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "deliveries" VALUES('home',1,'delivered',1782073156.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:2e3bb1166057bfc67f2529a5f3031e2431b63912201274d532ef1fa4ff2190db',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('home',2,'delivered',1782073159.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:388f3e34750eba3f713420e68ae5e2ab459c3de23a4c162b54275aa0efe3243e',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('home',3,'delivered',1782073155.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:d522c0e9df43f13d1c91ec61c52ad8202381f74bdad9806cf5ff5221e5c8f746',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('home',4,'delivered',1782073157.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:94fec20306f731729f0a977aabc33584a157e188fa45d9317bca257d1b9b6ad6',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('home',5,'delivered',1782073158.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:503ca6c5a5ebb6990b14b826a7b0e59ea11dbbdf3db5869297a000e861f8a241',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('home',6,'delivered',1.79587399993296527866e+09,0,0,0,NULL,NULL,NULL,NULL,'sha256:2711e92e4618f584249344b86a71b3cfbc845cb340911f3502f05dd0c62b6a92',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('stick',1,'delivered',1782073156.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:2e3bb1166057bfc67f2529a5f3031e2431b63912201274d532ef1fa4ff2190db',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('stick',2,'refused',1782073159.0,0,0,0,NULL,NULL,NULL,'too large',NULL,NULL,NULL);
INSERT INTO "deliveries" VALUES('stick',3,'delivered',1782073155.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:d522c0e9df43f13d1c91ec61c52ad8202381f74bdad9806cf5ff5221e5c8f746',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('stick',4,'delivered',1782073157.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:94fec20306f731729f0a977aabc33584a157e188fa45d9317bca257d1b9b6ad6',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('stick',5,'delivered',1782073158.0,0,0,0,NULL,NULL,NULL,NULL,'sha256:503ca6c5a5ebb6990b14b826a7b0e59ea11dbbdf3db5869297a000e861f8a241',NULL,1782073255.0);
INSERT INTO "deliveries" VALUES('stick',6,'delivered',1.79587399993296527866e+09,0,0,0,NULL,NULL,NULL,NULL,'sha256:2711e92e4618f584249344b86a71b3cfbc845cb340911f3502f05dd0c62b6a92',NULL,1782073255.0);
CREATE TABLE destinations (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    required INTEGER NOT NULL,
    active INTEGER NOT NULL,        -- 0: no longer in the config file
    attempts INTEGER NOT NULL DEFAULT 0, -- that failed in a row
    wait_boot TEXT,                 -- back-off: until `wait_until` on that boot's monotonic clock,
    wait_until REAL,
    wait_for REAL,                  -- or this long after the next boot; NULL: may go at once
    error TEXT,                     -- the last error; NULL: the last attempt was well
    error_at REAL,
    delivered_at REAL               -- the last confirmed delivery
) STRICT;
INSERT INTO "destinations" VALUES('home','stickypi',1,1,0,NULL,NULL,NULL,NULL,NULL,1782073255.0);
INSERT INTO "destinations" VALUES('stick','directory',1,1,0,NULL,NULL,NULL,NULL,NULL,1782073255.0);
INSERT INTO "destinations" VALUES('gallery','imagekit',0,1,0,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,            -- JSON
    at REAL NOT NULL
) STRICT;
INSERT INTO "facts" VALUES('capture','{"failures": 0, "error": null}',1782073255.0);
CREATE TABLE files (
    folder TEXT NOT NULL,           -- relative to the spool; '' is the spool itself
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    image_id INTEGER NOT NULL REFERENCES images (id),
    leaving INTEGER NOT NULL,       -- 1: its image is pruned, and the file is to be deleted
    PRIMARY KEY (folder, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "files" VALUES('0a1b2c3d/2026-06-21','0a1b2c3d.2026-06-21_20-19-17.jpg',3465,1795873999722857256,4,0);
INSERT INTO "files" VALUES('0a1b2c3d/2026-06-21','0a1b2c3d.2026-06-21_20-19-18.jpg',3442,1795873999798955989,5,0);
INSERT INTO "files" VALUES('0a1b2c3d/2026-06-21','0a1b2c3d.2026-06-21_20-19-19.jpg',3416,1795873999855656327,2,0);
INSERT INTO "files" VALUES('DCIM','IMG_0001.JPG',3494,1795873999932965472,6,0);
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,              -- a trap's file name, or the path of a foreign file
    path TEXT NOT NULL,             -- where its bytes lie, or lay, relative to the spool
    size INTEGER NOT NULL,
    md5 TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    metadata TEXT NOT NULL,         -- JSON: what the file says of itself
    rank REAL NOT NULL,             -- the order of delivery: the name's time, else the file's
    boot_id TEXT,                   -- the evidence of the moment of capture; NULL: another program's file
    monotonic REAL,
    wall REAL,
    clock_trusted INTEGER,
    conflict INTEGER NOT NULL DEFAULT 0,
    thumbnails INTEGER,             -- 1 made, 0 cannot be made, NULL not tried yet
    state TEXT NOT NULL CHECK (state IN ('owed', 'delivered', 'dropped')),
    gone_at REAL,                   -- when its file left the card; NULL: it is there
    gone_why TEXT,                  -- 'pruned', 'vanished', or the owner's policy
    ingested_at REAL NOT NULL,
    seal INTEGER NOT NULL, timing TEXT
    CHECK (timing IN ('held', 'confirmed', 'corrected', 'unsure', 'released')), clock_offset REAL, was TEXT,          -- of what never changes in the row: see `soundness`
    UNIQUE (key, sha256)
) STRICT;
INSERT INTO "images" VALUES(1,'0a1b2c3d.2026-06-21_20-19-16.jpg','0a1b2c3d/2026-06-21/0a1b2c3d.2026-06-21_20-19-16.jpg',3444,'c5e763dd0757506560f7cb76cd355bc5','2e3bb1166057bfc67f2529a5f3031e2431b63912201274d532ef1fa4ff2190db',160,120,'{"exif": true, "Make": "StickyPi", "Model": "imx477", "Software": "trapsync 0.1.0", "DateTime": "2026:06:21 20:19:16", "DateTimeOriginal": "2026:06:21 20:19:16", "DateTimeDigitized": "2026:06:21 20:19:16", "OffsetTime": "+00:00", "OffsetTimeOriginal": "+00:00", "OffsetTimeDigitized": "+00:00", "ISOSpeedRatings": 250, "ExposureTime": 0.066642, "format": "2022", "device_version": "0.1.0", "temp": 20.6, "hum": 42.6, "bat": 72.0, "lum": 1.18, "lat": 46.201, "lng": 6.123, "alt": 412.5, "but": true}',1782073156.0,'3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11',1234.567,1782073155.25,1,0,NULL,'delivered',1782073255.0,'pruned',1782073155.0,4035786552,NULL,NULL,NULL);
INSERT INTO "images" VALUES(2,'0a1b2c3d.2026-06-21_20-19-19.jpg','0a1b2c3d/2026-06-21/0a1b2c3d.2026-06-21_20-19-19.jpg',3416,'70d012146c943c963ca2c346314cc2d7','388f3e34750eba3f713420e68ae5e2ab459c3de23a4c162b54275aa0efe3243e',160,120,'{"exif": true, "Make": "StickyPi", "Model": "imx477", "Software": "trapsync 0.1.0", "DateTime": "2026:06:21 20:19:19", "DateTimeOriginal": "2026:06:21 20:19:19", "DateTimeDigitized": "2026:06:21 20:19:19", "OffsetTime": "+00:00", "OffsetTimeOriginal": "+00:00", "OffsetTimeDigitized": "+00:00", "ISOSpeedRatings": 250, "ExposureTime": 0.066642, "format": "2022", "device_version": "0.1.0", "temp": 20.6, "hum": 42.6, "bat": 72.0, "lum": 1.18, "lat": 46.201, "lng": 6.123, "alt": 412.5, "but": true}',1782073159.0,'3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11',1234.567,1782073155.25,1,0,NULL,'owed',NULL,NULL,1782073155.0,2128728531,NULL,NULL,NULL);
INSERT INTO "images" VALUES(3,'0a1b2c3d.2026-06-21_20-19-15.jpg','0a1b2c3d/2026-06-21/0a1b2c3d.2026-06-21_20-19-15.jpg',3447,'2a42e3368dd75ac6e9f08737fe378f64','d522c0e9df43f13d1c91ec61c52ad8202381f74bdad9806cf5ff5221e5c8f746',160,120,'{"exif": true, "Make": "StickyPi", "Model": "imx477", "Software": "trapsync 0.1.0", "DateTime": "2026:06:21 20:19:15", "DateTimeOriginal": "2026:06:21 20:19:15", "DateTimeDigitized": "2026:06:21 20:19:15", "OffsetTime": "+00:00", "OffsetTimeOriginal": "+00:00", "OffsetTimeDigitized": "+00:00", "ISOSpeedRatings": 250, "ExposureTime": 0.066642, "format": "2022", "device_version": "0.1.0", "temp": 20.6, "hum": 42.6, "bat": 72.0, "lum": 1.18, "lat": 46.201, "lng": 6.123, "alt": 412.5, "but": true}',1782073155.0,'3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11',1234.567,1782073155.25,1,0,NULL,'delivered',1782073255.0,'pruned',1782073155.0,884698434,NULL,NULL,NULL);
INSERT INTO "images" VALUES(4,'0a1b2c3d.2026-06-21_20-19-17.jpg','0a1b2c3d/2026-06-21/0a1b2c3d.2026-06-21_20-19-17.jpg',3465,'04b4f89d8fcaed38aa3500870e564553','94fec20306f731729f0a977aabc33584a157e188fa45d9317bca257d1b9b6ad6',160,120,'{"exif": true, "Make": "StickyPi", "Model": "imx477", "Software": "trapsync 0.1.0", "DateTime": "2026:06:21 20:19:17", "DateTimeOriginal": "2026:06:21 20:19:17", "DateTimeDigitized": "2026:06:21 20:19:17", "OffsetTime": "+00:00", "OffsetTimeOriginal": "+00:00", "OffsetTimeDigitized": "+00:00", "ISOSpeedRatings": 250, "ExposureTime": 0.066642, "format": "2022", "device_version": "0.1.0", "temp": 20.6, "hum": 42.6, "bat": 72.0, "lum": 1.18, "lat": 46.201, "lng": 6.123, "alt": 412.5, "but": true}',1782073157.0,'3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11',1234.567,1782073155.25,1,0,NULL,'delivered',NULL,NULL,1782073155.0,2107477245,NULL,NULL,NULL);
INSERT INTO "images" VALUES(5,'0a1b2c3d.2026-06-21_20-19-18.jpg','0a1b2c3d/2026-06-21/0a1b2c3d.2026-06-21_20-19-18.jpg',3442,'4f954d9012838d17916e6770e1e21905','503ca6c5a5ebb6990b14b826a7b0e59ea11dbbdf3db5869297a000e861f8a241',160,120,'{"exif": true, "Make": "StickyPi", "Model": "imx477", "Software": "trapsync 0.1.0", "DateTime": "2026:06:21 20:19:18", "DateTimeOriginal": "2026:06:21 20:19:18", "DateTimeDigitized": "2026:06:21 20:19:18", "OffsetTime": "+00:00", "OffsetTimeOriginal": "+00:00", "OffsetTimeDigitized": "+00:00", "ISOSpeedRatings": 250, "ExposureTime": 0.066642, "format": "2022", "device_version": "0.1.0", "temp": 20.6, "hum": 42.6, "bat": 72.0, "lum": 1.18, "lat": 46.201, "lng": 6.123, "alt": 412.5, "but": true}',1782073158.0,'3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11',1234.567,1782073155.25,1,0,NULL,'delivered',NULL,NULL,1782073155.0,145419093,NULL,NULL,NULL);
INSERT INTO "images" VALUES(6,'DCIM/IMG_0001.JPG','DCIM/IMG_0001.JPG',3494,'62b5252ef797bbadd70b338d6a3c2cb4','2711e92e4618f584249344b86a71b3cfbc845cb340911f3502f05dd0c62b6a92',160,120,'{"exif": true, "Make": "StickyPi", "Model": "imx477", "Software": "trapsync 0.1.0", "DateTime": "2026:06:21 20:19:15", "DateTimeOriginal": "2026:06:21 20:19:15", "DateTimeDigitized": "2026:06:21 20:19:15", "OffsetTime": "+00:00", "OffsetTimeOriginal": "+00:00", "OffsetTimeDigitized": "+00:00", "ISOSpeedRatings": 250, "ExposureTime": 0.066642, "format": "2022", "device_version": "0.1.0", "temp": 20.6, "hum": 42.6, "bat": 72.0, "lum": 1.18, "lat": 46.201, "lng": 6.123, "alt": 412.5, "but": true}',1.79587399993296527866e+09,'3c2f7c8e-6a53-4d0e-9c0a-3f3f0f6d1c11',1234.567,1782073155.25,1,0,NULL,'delivered',NULL,NULL,1782073155.0,947020524,NULL,NULL,NULL);
CREATE TABLE labels (
    destination TEXT NOT NULL,
    image_id INTEGER NOT NULL REFERENCES images (id),
    state TEXT NOT NULL CHECK (state IN ('done', 'error')),
    task TEXT NOT NULL,             -- its id at the destination
    reason TEXT NOT NULL,           -- why there will be no labels; '' where there are
    annotations TEXT NOT NULL,      -- JSON: a list, each as it was answered
    at REAL NOT NULL,               -- when it was fetched
    seal INTEGER NOT NULL,          -- of those before `at`: see `soundness`
    PRIMARY KEY (destination, image_id)
) STRICT;
CREATE TABLE notes (
    destination TEXT NOT NULL,
    key TEXT NOT NULL,
    note TEXT NOT NULL,             -- JSON
    seal INTEGER NOT NULL,          -- of the others: see `soundness`
    PRIMARY KEY (destination, key)
) STRICT, WITHOUT ROWID;
INSERT INTO "notes" VALUES('gallery','job:1','{"id": 7}',3421634228);
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,             -- where it lay in the spool
    kept_as TEXT NOT NULL UNIQUE,
    reason TEXT NOT NULL,
    size INTEGER NOT NULL,
    found_at REAL NOT NULL
) STRICT;
INSERT INTO "quarantine" VALUES(1,'bad.jpg','6bf2166a9aca.bad.jpg','not a JPEG: it does not begin like one',6,1782073155.0);
CREATE TABLE tallies (
    destination TEXT NOT NULL,
    state TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (destination, state)
) STRICT, WITHOUT ROWID;
INSERT INTO "tallies" VALUES('','delivered',5);
INSERT INTO "tallies" VALUES('','owed',1);
INSERT INTO "tallies" VALUES('gallery','owed',4);
INSERT INTO "tallies" VALUES('home','delivered',6);
INSERT INTO "tallies" VALUES('home','owed',0);
INSERT INTO "tallies" VALUES('stick','delivered',5);
INSERT INTO "tallies" VALUES('stick','owed',0);
INSERT INTO "tallies" VALUES('stick','refused',1);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX images_newest ON images (rank);
CREATE INDEX images_without_thumbnails ON images (rank) WHERE thumbnails IS NULL AND gone_at IS NULL;
CREATE INDEX images_prunable ON images (rank) WHERE state = 'delivered' AND gone_at IS NULL;
CREATE INDEX images_conflicting ON images (rank) WHERE conflict = 1;
CREATE INDEX images_dropped ON images (gone_why) WHERE state = 'dropped';
CREATE INDEX files_of_image ON files (image_id);
CREATE INDEX files_leaving ON files (leaving) WHERE leaving = 1;
CREATE INDEX deliveries_owed ON deliveries (destination, attempts, rank) WHERE state = 'owed';
CREATE INDEX deliveries_refused ON deliveries (destination, rank) WHERE state = 'refused';
CREATE INDEX deliveries_of_image ON deliveries (image_id);
CREATE TRIGGER images_counted AFTER INSERT ON images BEGIN
    INSERT INTO tallies VALUES ('', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER images_recounted AFTER UPDATE OF state ON images WHEN old.state != new.state BEGIN
    UPDATE tallies SET n = n - 1 WHERE destination = '' AND state = old.state;
    INSERT INTO tallies VALUES ('', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER deliveries_counted AFTER INSERT ON deliveries BEGIN
    INSERT INTO tallies VALUES (new.destination, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER deliveries_recounted AFTER UPDATE OF state ON deliveries WHEN old.state != new.state BEGIN
    UPDATE tallies SET n = n - 1 WHERE destination = old.destination AND state = old.state;
    INSERT INTO tallies VALUES (new.destination, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER deliveries_uncounted AFTER DELETE ON deliveries BEGIN
    UPDATE tallies SET n = n - 1 WHERE destination = old.destination AND state = old.state;
END;
CREATE INDEX images_timed ON images (timing, boot_id, monotonic) WHERE timing IS NOT NULL;
CREATE INDEX images_of_boot ON images (boot_id, monotonic) WHERE boot_id IS NOT NULL;
CREATE INDEX files_replaced ON files (leaving) WHERE leaving = 2;
COMMIT;
