PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE heartbeats (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        device   TEXT NOT NULL,
        received REAL NOT NULL,
        body     TEXT NOT NULL
    ) STRICT;
INSERT INTO "heartbeats" VALUES(1,'0a5bb6f4',1.79601334232278871541e+09,'{"device": "0a5bb6f4", "name": "valley-1", "verdict": "ok"}');
CREATE TABLE images (
        id               INTEGER PRIMARY KEY AUTOINCREMENT,
        device           TEXT NOT NULL COLLATE NOCASE,
        datetime         TEXT NOT NULL,
        md5              TEXT NOT NULL,
        device_version   TEXT,
        width            INTEGER NOT NULL,
        height           INTEGER NOT NULL,
        lat              REAL,
        lng              REAL,
        alt              REAL,
        temp             REAL,
        hum              REAL,
        lum              REAL,
        bat              INTEGER,
        but              INTEGER,
        datetime_created TEXT NOT NULL,
        api_version      TEXT NOT NULL,
        api_user_id      INTEGER REFERENCES users (id) ON DELETE SET NULL,
        UNIQUE (device, datetime)
    ) STRICT;
INSERT INTO "images" VALUES(1,'0a5bb6f4','2026-06-20T20:19:15Z','00000000000000000000000000000000',NULL,1,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-06-20T20:19:15Z','x',2);
CREATE TABLE secrets (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
INSERT INTO "secrets" VALUES('key','0000000000000000000000000000000000000000000000000000000000000000');
CREATE TABLE slots (
        name   TEXT PRIMARY KEY,
        data   BLOB NOT NULL,
        hash   TEXT NOT NULL,
        stored TEXT NOT NULL,
        user   TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
CREATE TABLE uid_annotations (
        id               INTEGER PRIMARY KEY AUTOINCREMENT,
        parent_image_id  INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        algo_name        TEXT NOT NULL,
        algo_version     TEXT NOT NULL,
        n_objects        INTEGER NOT NULL,
        json             TEXT NOT NULL,
        datetime_created TEXT NOT NULL,
        api_version      TEXT NOT NULL,
        api_user_id      INTEGER REFERENCES users (id) ON DELETE SET NULL,
        UNIQUE (parent_image_id, algo_name, algo_version)
    ) STRICT;
INSERT INTO "uid_annotations" VALUES(1,1,'a','1',0,'{}','2026-06-20T20:19:15Z','x',2);
CREATE TABLE users (
        id            INTEGER PRIMARY KEY AUTOINCREMENT,
        name          TEXT NOT NULL UNIQUE,
        password_hash TEXT NOT NULL,
        role          TEXT NOT NULL CHECK (role IN ('admin', 'read-write', 'read-only'))
    ) STRICT;
INSERT INTO "users" VALUES(1,'trapsync','scrypt:32768:8:1$AJ7zEsXrwhu4oOYL$1ca4116d36e22ff3c83b405f59d69f6e8fc6bb88b72703c06d167779bb09742ce8baa8dfffe9d3750de9f4426293a9b6e0d78112e16deff3a3ff4b447fda3024','admin');
INSERT INTO "users" VALUES(2,'trap','scrypt:32768:8:1$ktQ169RrOdq1SgTy$03399ed31836fb77dc6d021181599561d3c834c48adb1f19c95bbac4740aa8d69ad1a554ed6d75b56e5c77dd34b67d6df858d5d514dff66afb0b7d6bb68a2e9c','read-write');
INSERT INTO "users" VALUES(3,'reader','scrypt:32768:8:1$rQa3mBLz4MwO7EAX$98d8bc22217411c31134c0a37ab08431e8d96bb68ef5a19fa7e5a9bc7351cd4e3c183a82a73c97398c14ba840372dd15887eacd4ced924a8294d620febe636c9','read-only');
CREATE INDEX heartbeats_by_device ON heartbeats (device, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('users',3);
INSERT INTO "sqlite_sequence" VALUES('heartbeats',1);
INSERT INTO "sqlite_sequence" VALUES('images',1);
INSERT INTO "sqlite_sequence" VALUES('uid_annotations',1);
COMMIT;
