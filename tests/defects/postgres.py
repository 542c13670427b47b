"""Defects to sow in the PostgreSQL store."""

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
    STOPPED,
    TAKEN_ALONG,
    WALK,
    Defect,
)

DEFECTS = [
    Defect(
        "another owner's thread is found",
        'THREAD = "FROM chatkit.thread WHERE owner = $1 AND',
        "THREAD = \"FROM chatkit.thread WHERE $1 <> '' AND",
        FOREIGN,
    ),
    Defect(
        "a dead connection is not replaced",
        "if fresh or time.monotonic() > end:",
        "if True:",
        ENGINE + "a_restart_that_nobody_saw_fails_no_call",
    ),
    Defect(
        "ping does not ask",
        'await self._pool.run("SELECT FROM chatkit.migration LIMIT 1")',
        "pass",
        ENGINE + "the_store_works_again_as_soon_as_its_engine_does",
    ),
    Defect("the cursor is off by one", "AND seq {than} (SELECT", "AND seq {than}= (SELECT", WALK),
    Defect("has_more on a full last page", "len(rows) > limit\n", "len(rows) >= limit\n", MORE),
    Defect(
        "items by created_at",
        "ORDER BY seq {way} LIMIT $2",
        "ORDER BY doc::json ->> 'created_at' {way} LIMIT $2",
        ORDER,
    ),
    Defect(
        "add without upsert",
        "(owner, thread_id, id) DO UPDATE SET doc = $4 RETURNING",
        "(owner, thread_id, id) DO UPDATE SET doc = $4, seq = DEFAULT RETURNING",
        IN_PLACE,
    ),
    Defect(
        "delete leaves attachments",
        "PRIMARY KEY (owner, id),\n"
        "        FOREIGN KEY (owner, thread_id) REFERENCES chatkit.thread ON DELETE CASCADE);",
        "PRIMARY KEY (owner, id));",
        TAKEN_ALONG,
    ),
    Defect(
        "no tombstone",
        "WHERE old.deleted IS NULL OR old.deleted <",
        "WHERE true OR old.deleted <",
        BARRED,
    ),
    Defect(
        "feedback is stored on some of the items",
        "cardinality($3::text[]) = (",
        "0 < (",
        ALL_OR_NONE,
    ),
    Defect(
        "two leases at once",
        "WHERE old.turn_id = $3 OR old.until < clock_timestamp() RETURNING",
        "WHERE true RETURNING",
        HELD,
    ),
    Defect("a stop is not heard", "AND turn_id = $3 AND NOT stopping", "AND turn_id = $3", STOPPED),
    Defect(
        "no lock while adding",
        "{THREAD} FOR NO KEY UPDATE)\n            INSERT INTO chatkit.item",
        "{THREAD})\n            INSERT INTO chatkit.item",
        AT_ONCE + "a_reader_at_the_tail_of_twelve_writers_misses_nothing",
    ),
    Defect(
        "the password is shown",
        "postgresql://{hosts}",
        "{parts.netloc}",
        ENGINE + "a_start_without_the_engine_ends_with_the_setting_and_no_password",
    ),
    Defect(
        "two may add one id",
        "ON CONFLICT (owner, thread_id, id) DO UPDATE SET doc = $4 RETURNING true",
        "RETURNING true",
        AT_ONCE + "one_id_added_many_times_at_once_is_one_item",
    ),
    Defect(
        "backwards from the cursor goes forwards",
        'return ("<", "DESC") if order',
        'return (">", "DESC") if order',
        AT_ONCE + "a_walk_beside_writers_gives_what_was_there_once",
    ),
    Defect(
        "no lock while migrating",
        'await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", self._schema)',
        "pass",
        AT_ONCE + "several_stores_may_open_at_once",
    ),
    Defect(
        "a connection is passed on before its answer is there",
        "if each not in self._busy and not each.is_closed()",
        "if not each.is_closed()",
        OWNER + "the_answer_of_a_cancelled_call_reaches_nobody_else",
    ),
]
