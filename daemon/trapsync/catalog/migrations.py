"""The catalog's schema, as a list of migrations: append only. A released migration is never edited.

Times are unix seconds of the wall clock, right or wrong as it was. JSON columns hold objects.
"""

from sqlite_utils import Database, Migrations

from trapsync.catalog.statements import statements

migrations = Migrations("trapsync")


def _run(db: Database, script: str) -> None:
    for statement in statements(script):
        db.execute(statement)


@migrations()
def m001_the_way_of_an_image(db: Database) -> None:
    """The tables of the first release."""
    _run(
        db,
        """
-- A row is an image that was examined and found whole: these bytes under this identity. The same
-- identity with other bytes is another row with `conflict` 1. Rows stay when the file leaves the card.
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
    seal INTEGER NOT NULL,          -- of what never changes in the row: see `soundness`
    UNIQUE (key, sha256)
) STRICT;
CREATE INDEX images_newest ON images (rank);
CREATE INDEX images_without_thumbnails ON images (rank) WHERE thumbnails IS NULL AND gone_at IS NULL;
CREATE INDEX images_prunable ON images (rank) WHERE state = 'delivered' AND gone_at IS NULL;
CREATE INDEX images_conflicting ON images (rank) WHERE conflict = 1;
CREATE INDEX images_dropped ON images (gone_why) WHERE state = 'dropped';

-- A row is a file of the spool that was looked at, as it was then. What the sweep finds and is not
-- here, or differs, is examined. Two copies of one image are two rows.
CREATE TABLE files (
    folder TEXT NOT NULL,           -- relative to the spool; '' is the spool itself
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    image_id INTEGER NOT NULL REFERENCES images (id),
    leaving INTEGER NOT NULL,       -- 1: its image is pruned, and the file is to be deleted
    PRIMARY KEY (folder, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX files_of_image ON files (image_id);
CREATE INDEX files_leaving ON files (leaving) WHERE leaving = 1;

-- A row is a [destinations.NAME] table that was in the config file once.
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

-- A row is one image × one destination. There is no "sending": a crash while sending leaves "owed".
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
CREATE INDEX deliveries_owed ON deliveries (destination, attempts, rank) WHERE state = 'owed';
CREATE INDEX deliveries_refused ON deliveries (destination, rank) WHERE state = 'refused';
CREATE INDEX deliveries_of_image ON deliveries (image_id);

-- A row is a damaged file, kept under `kept_as` in the quarantine folder with its reason.
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,             -- where it lay in the spool
    kept_as TEXT NOT NULL UNIQUE,
    reason TEXT NOT NULL,
    size INTEGER NOT NULL,
    found_at REAL NOT NULL
) STRICT;

-- A row is how many images, or deliveries to one destination, are in a state: kept by the triggers
-- below, so that `status` need not count a million rows. The images' own rows have destination ''.
CREATE TABLE tallies (
    destination TEXT NOT NULL,
    state TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (destination, state)
) STRICT, WITHOUT ROWID;

-- A row is something the daemon wants `status` to know, with the moment it was so.
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,            -- JSON
    at REAL NOT NULL
) STRICT;

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
""",
    )


@migrations()
def m002_times_put_right(db: Database) -> None:
    """What is known of the clock, and of the times of images that were taken before it was set."""
    _run(
        db,
        """
-- How the time of an image of our own stands whose clock was not synchronised when it was taken; NULL: it
-- was, or it is another program's file. 'held': it may yet be put right. 'confirmed': it was right.
-- 'corrected': the file was written anew. 'unsure': its boot ended first; held too. 'released': unsure,
-- and delivered all the same, as the owner says.
ALTER TABLE images ADD COLUMN timing TEXT
    CHECK (timing IN ('held', 'confirmed', 'corrected', 'unsure', 'released'));
ALTER TABLE images ADD COLUMN clock_offset REAL; -- corrected: what was added to `monotonic`
ALTER TABLE images ADD COLUMN was TEXT;          -- corrected: its name until then; NULL: not known any more
CREATE INDEX images_timed ON images (timing, boot_id, monotonic) WHERE timing IS NOT NULL;
CREATE INDEX images_of_boot ON images (boot_id, monotonic) WHERE boot_id IS NOT NULL;

-- A row is a boot of the machine, in the order in which the daemon saw them.
CREATE TABLE boots (
    boot_id TEXT PRIMARY KEY,
    number INTEGER UNIQUE,          -- their order; NULL: known from its images only
    clock_offset REAL,              -- wall − monotonic when the wall could be trusted; NULL: it never could
    trusted_at REAL                 -- the first such moment, on the wall
) STRICT, WITHOUT ROWID;

-- A row is a corrected file that is being written: announced before, gone when its image has it.
CREATE TABLE corrections (
    image_id INTEGER PRIMARY KEY REFERENCES images (id),
    key TEXT NOT NULL UNIQUE,       -- the name that the image is to have, and nobody else
    path TEXT NOT NULL UNIQUE       -- where the file is to lie
) STRICT;

-- The files that corrected ones replace: `leaving` is 2 until they are deleted.
CREATE INDEX files_replaced ON files (leaving) WHERE leaving = 2;
""",
    )


@migrations()
def m003_notes_of_destinations(db: Database) -> None:
    """What destinations write down beyond single images, and which of them wait for another."""
    _run(
        db,
        """
-- A row is a note of one destination's: the id of a job or a task, say. Whatever stands here can be asked
-- for at its other end.
CREATE TABLE notes (
    destination TEXT NOT NULL,
    key TEXT NOT NULL,
    note TEXT NOT NULL,             -- JSON
    seal INTEGER NOT NULL,          -- of the others: see `soundness`
    PRIMARY KEY (destination, key)
) STRICT, WITHOUT ROWID;
""",
    )


@migrations()
def m004_labels(db: Database) -> None:
    """What annotation services saw in the images."""
    _run(
        db,
        """
-- A row is what a destination answered about an image. One that was delivered there with a task and has no
-- row of that task is still worked on.
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
""",
    )


@migrations()
def m005_places(db: Database) -> None:
    """Proofs belong to places; when they were last confirmed; what became of images that a place lost."""
    _run(
        db,
        """
-- A row is a place that the table [destinations.NAME] of the config file stands for, or stood for once: another
-- server, account or folder under the old name is another row. Deliveries, notes and labels have its `key`.
ALTER TABLE destinations RENAME TO destinations_of_names;
CREATE TABLE destinations (
    key TEXT PRIMARY KEY,           -- the name; of a later place under the same name: NAME@2, NAME@3, …
    name TEXT NOT NULL,
    place TEXT,                     -- which place it is (`Destination.place`); NULL: not known yet
    current INTEGER NOT NULL,       -- 1: the place that the name stands for; 0: that it stood for before
    kind TEXT NOT NULL,
    required INTEGER NOT NULL,
    active INTEGER NOT NULL,        -- 0: no longer in the config file, or no longer this place
    attempts INTEGER NOT NULL DEFAULT 0, -- that failed in a row
    wait_boot TEXT,                 -- back-off: until `wait_until` on that boot's monotonic clock,
    wait_until REAL,
    wait_for REAL,                  -- or this long after the next boot; NULL: may go at once
    error TEXT,                     -- the last error; NULL: the last attempt was well
    error_at REAL,
    delivered_at REAL,              -- the last confirmed delivery
    asked_at REAL,                  -- when it was last asked again about a slice of what it confirmed
    barred INTEGER NOT NULL DEFAULT 0 -- 1: at the last attempt that failed it answered, and did not let us in
) STRICT;
INSERT INTO destinations (key, name, current, kind, required, active, attempts, wait_boot, wait_until, wait_for,
        error, error_at, delivered_at)
    SELECT name, name, 1, kind, required, active, attempts, wait_boot, wait_until, wait_for,
        error, error_at, delivered_at FROM destinations_of_names;
DROP TABLE destinations_of_names;
CREATE UNIQUE INDEX destinations_current ON destinations (name) WHERE current = 1;
CREATE UNIQUE INDEX destinations_places ON destinations (name, place) WHERE place IS NOT NULL;

ALTER TABLE deliveries ADD COLUMN lies_at TEXT;      -- delivered: the key or path under which it lies there
-- When the place last confirmed the image's digest, by the wall clock (for people, and to choose who is asked next)
-- and by the monotonic clock of a boot (to count a day). NULL: not since it was delivered, or not since proofs
-- belong to places: then it is asked before the image may leave the card.
ALTER TABLE deliveries ADD COLUMN confirmed_at REAL;
ALTER TABLE deliveries ADD COLUMN confirmed_boot TEXT; -- the end of the boot's id; '': it went on its last word
ALTER TABLE deliveries ADD COLUMN confirmed_mono REAL;
ALTER TABLE deliveries ADD COLUMN acknowledged_at REAL; -- refused, off the card: the owner has seen it

-- `gone_why` may be 'lost': pruned, and then no destination that must have it holds it any more.
-- `unasked` is 1 when it was pruned on the last word of a server that could not be asked; `acknowledged_at`: the
-- owner has seen that it was dropped, lost or in conflict, and is off the card; `picture` is the SHA-256 of the
-- file without its EXIF, where its time is, or was, to be put right.
ALTER TABLE images ADD COLUMN unasked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN acknowledged_at REAL;
ALTER TABLE images ADD COLUMN picture TEXT;
CREATE INDEX images_unasked ON images (id) WHERE unasked = 1;
-- Off the card though pending: their destinations are asked for them before they are dropped.
CREATE INDEX images_missing ON images (id) WHERE state = 'owed' AND gone_at IS NOT NULL;
CREATE INDEX images_of_bytes ON images (sha256) WHERE boot_id IS NULL; -- of other programs, whose files are renamed
""",
    )


@migrations()
def m006_pending(db: Database) -> None:
    """A delivery that is not confirmed yet is pending; so far the catalog called it owed.

    The word stands in CHECK constraints, which SQLite cannot alter. That changes nothing of how rows are stored, so
    the text of the tables is edited (sqlite.org/lang_altertable.html, 7): a copy of two tables of a large catalog would
    take a small Pi minutes.
    """
    for index in ("deliveries_owed", "images_missing"):
        db.execute(f"DROP INDEX {index}")
    db.execute("PRAGMA ignore_check_constraints = ON")
    for table in ("images", "deliveries"):  # the triggers of m001 move the tallies
        db.execute(f"UPDATE {table} SET state = 'pending' WHERE state = 'owed'")
    db.execute("DELETE FROM tallies WHERE state = 'owed'")
    db.execute("PRAGMA writable_schema = ON")
    db.execute(
        """UPDATE sqlite_schema SET sql = replace(sql, '''owed'', ''delivered''', '''pending'', ''delivered''')
           WHERE type = 'table' AND name IN ('images', 'deliveries')"""
    )
    db.execute("PRAGMA writable_schema = RESET")
    db.execute("PRAGMA ignore_check_constraints = OFF")
    db.execute(
        "CREATE INDEX deliveries_pending ON deliveries (destination, attempts, rank) WHERE state = 'pending'"
    )
    # Off the card though pending: their destinations are asked for them before they are dropped.
    db.execute("CREATE INDEX images_missing ON images (id) WHERE state = 'pending' AND gone_at IS NOT NULL")


@migrations()
def m007_deployments(db: Database) -> None:
    """Where the trap stood, and from when until when."""
    _run(
        db,
        """
-- A row is a moment from which on a deployment was in force, until that of the next row; or none, where the owner ended
-- the one before. Their order is that of `number`: one whose time is not known yet lies between its neighbours.
CREATE TABLE deployments (
    number INTEGER PRIMARY KEY,
    id TEXT UNIQUE,                 -- NULL: from here on there was none
    began REAL NOT NULL,            -- by the wall clock, in whole seconds
    boot_id TEXT,                   -- the boot and its clock, while the time is still to be corrected; NULL: it is right
    monotonic REAL,
    terms TEXT NOT NULL,            -- JSON: what the settings said
    is_whole INTEGER NOT NULL DEFAULT 1 -- 0: found in images after the catalog was lost, which do not hold all terms
) STRICT;
""",
    )


@migrations()
def m008_reports(db: Database) -> None:
    """What the hub holds of that which it is to be told once."""
    _run(
        db,
        """
-- A row is a report that the hub holds, as it said: a night (`key`: its date), a deployment (its id). `sha256` is the
-- digest of its line, in hex; one that differs from what the trap would send is sent again.
CREATE TABLE reports (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- The one row is the hub that `reports` is about, by its own id. It counts what it stores: up to `number` it has said so.
CREATE TABLE reports_hub (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    hub TEXT NOT NULL,
    number INTEGER NOT NULL
) STRICT;
""",
    )


@migrations()
def m009_runs(db: Database) -> None:
    """When pictures were due, and why some were not taken: see `catalog.runs`."""
    _run(
        db,
        """
-- A row is what the settings said of captures, at some start of the daemon.
CREATE TABLE schedules (
    id INTEGER PRIMARY KEY,
    every REAL NOT NULL,            -- seconds
    windows TEXT NOT NULL,          -- as in capture.schedule, each in its line
    latitude REAL NOT NULL,
    longitude REAL NOT NULL,
    timezone TEXT NOT NULL,
    UNIQUE (every, windows, latitude, longitude, timezone)
) STRICT;

-- A row is a run of the daemon, or single runs one after another. A moment is the boot's monotonic clock, the wall
-- clock, and whether that was trusted.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    first_boot TEXT NOT NULL,       -- of `began`
    boot_id TEXT NOT NULL,          -- of `ended`: another one after several single runs
    schedule INTEGER REFERENCES schedules (id), -- NULL: without a camera
    is_single INTEGER NOT NULL,
    began REAL NOT NULL,
    began_wall REAL NOT NULL,
    began_trusted INTEGER NOT NULL,
    ended REAL,                     -- of an orderly end, or the newest single run; NULL: it runs, or there was none
    ended_wall REAL,
    ended_trusted INTEGER,
    ending TEXT CHECK (ending IN ('stopped', 'settings', 'card', 'failed'))
) STRICT;

-- A row is a span of a run in which captures failed, from the first failure to the last.
CREATE TABLE failures (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id),
    boot_id TEXT NOT NULL,
    reason TEXT NOT NULL CHECK (reason IN ('camera', 'card')),
    first REAL NOT NULL,
    first_wall REAL NOT NULL,
    first_trusted INTEGER NOT NULL,
    last REAL NOT NULL,
    last_wall REAL NOT NULL,
    last_trusted INTEGER NOT NULL,
    count INTEGER NOT NULL,
    error TEXT NOT NULL             -- the first
) STRICT;
CREATE INDEX failures_of_run ON failures (run);
""",
    )
