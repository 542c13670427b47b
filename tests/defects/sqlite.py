"""Defects to sow in the SQLite store."""

from .base import (
    ALL_OR_NONE,
    AT_ONCE,
    BARRED,
    ENGINE,
    FOREIGN,
    HELD,
    IN_PLACE,
    MORE,
    ORDER,
    OWNER,
    TAKEN_ALONG,
    WALK,
    Defect,
)

IMPATIENT = 'db.execute("BEGIN IMMEDIATE"), time.sleep(0.02)'  # held for long enough to meet
DEFECTS = [
    Defect(
        "another owner's thread is found",
        'MINE = "owner = ?1 AND id = ?2"',
        'MINE = "?1 IS NOT NULL AND id = ?2"',
        FOREIGN,
    ),
    Defect(
        "the cursor is off by one",
        "WHERE key > {bounds[0]} AND",
        "WHERE key >= {bounds[0]} AND",
        WALK,
    ),
    Defect("has_more on a full last page", "count > limit,", "count >= limit,", MORE),
    Defect(
        "items by created_at",
        'ORDER BY key {"DESC"',
        "ORDER BY json_extract(doc, '$.created_at') {\"DESC\"",
        ORDER,
    ),
    Defect(
        "a page runs into the next thread",
        '"{THREAD} + 1 << 32"]',
        '"{THREAD} + 2 << 32"]',
        OWNER + "each_owner_reads_its_own_under_the_same_ids",
    ),
    Defect(
        "add without upsert",
        "(thread, id) DO UPDATE SET doc = excluded.doc",
        "(thread, id) DO UPDATE SET doc = excluded.doc, key = excluded.key",
        IN_PLACE,
    ),
    Defect("delete leaves attachments", "foreign_keys = ON", "foreign_keys = OFF", TAKEN_ALONG),
    Defect("no tombstone", "now + TOMBSTONE_SECONDS", "now", BARRED),
    Defect(
        "feedback is stored on some of the items",
        "least = len(set(item_ids))",
        "least = 1",
        ALL_OR_NONE,
    ),
    Defect(
        "two leases at once",
        "WHERE turns.id = excluded.id\n                OR",
        "WHERE true OR",
        HELD,
    ),
    Defect(
        "one failure fails all of its commit",
        "        outcome = error\n    db.execute",
        "        raise\n    db.execute",
        ENGINE + "a_write_that_fails_does_not_fail_the_others_in_its_commit",
    ),
    Defect(
        "a newer schema is used",
        "if found > len(SCHEMA):",
        "if found < 0:",
        ENGINE + "a_newer_schema_is_refused_and_left_alone",
    ),
    Defect(
        "an item is added without waiting for another's lock",
        '_patiently(db, "BEGIN IMMEDIATE", first[2])',
        IMPATIENT,
        AT_ONCE + "a_hundred_adds_at_once_are_all_there",
    ),
    Defect(
        "a thread is saved without waiting for another's lock",
        '_patiently(db, "BEGIN IMMEDIATE", first[2])',
        IMPATIENT,
        AT_ONCE + "a_hundred_threads_at_once_are_all_there",
    ),
    Defect(
        "an item is added without waiting for another process's lock",
        '_patiently(db, "BEGIN IMMEDIATE", first[2])',
        IMPATIENT,
        AT_ONCE + "a_hundred_adds_from_two_processes_are_all_there",
    ),
    Defect(
        "nothing waits for another's lock",
        '_patiently(db, "BEGIN IMMEDIATE", first[2])',
        IMPATIENT,
        AT_ONCE + "all_kinds_of_writes_at_once_never_make_each_other_fail",
    ),
    Defect(
        "a reader sees the file as it once was",
        'reads.execute("PRAGMA query_only = ON")',
        'reads.execute("BEGIN")',
        AT_ONCE + "what_was_acknowledged_is_there_for_the_neighbour_at_once",
    ),
    Defect(
        "a claim without its thread hears that another turn holds it",
        "*values, needs=thread_id) > 0",
        "*values) > 0",
        AT_ONCE + "a_thread_saved_meanwhile_is_missing_or_free",
    ),
]
