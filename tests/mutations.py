"""Defects to sow in a baked app, one at a time, each with the test of the app that names it.

The text to replace stands exactly once in its file, so that a change of the source shows here.
"""

from typing import NamedTuple


class Defect(NamedTuple):
    """What is changed in which file, and the test that must fail then."""

    name: str
    old: str
    new: str
    test: str
    file: str = "app/store.py"


STORE, TURN = "tests/test_store.py::test_", "tests/test_store_turns.py::test_"
VALUE, OWNER = "tests/test_store_values.py::test_", "tests/test_store_isolation.py::test_"
IDS, AT_ONCE = "tests/test_store_ids.py::test_", "tests/test_store_concurrency.py::test_"
ENGINE = "tests/test_store_engine.py::test_"
AUTH, HTTP = "tests/test_auth.py::test_", "tests/test_protocol.py::test_"
FILE, ANSWER = "tests/test_files.py::test_", "tests/test_turns.py::test_"
ASSISTANT, USERS = "tests/test_assistant.py::test_", "tests/test_users.py::test_"

FOREIGN = OWNER + "what_is_foreign_answers_as_what_is_unknown"
WALK = STORE + "walk_gives_each_item_once_when_fifty_times_are_equal"
MORE = STORE + "page_says_has_more_only_while_more_follow"
ORDER = STORE + "items_come_in_the_order_of_adding_not_of_time"
IN_PLACE = STORE + "adding_again_replaces_in_place"
TAKEN_ALONG = STORE + "deleting_a_thread_takes_its_items_and_attachments_along"
BARRED = TURN + "a_deleted_thread_is_not_saved_again"
ALL_OR_NONE = TURN + "feedback_on_a_missing_item_stores_none_of_it"
HELD = TURN + "one_turn_at_a_time_holds_the_lease"
STOPPED = TURN + "a_stopped_turn_hears_of_it_at_its_next_renewal"

DEFECTS: dict[str, list[Defect]] = {
    "memory": [
        Defect(
            "another owner's thread is found",
            "if found := self._threads[owner_of(context)].get(thread_id):",
            "all_owners = map(lambda held: held.get(thread_id), self._threads.values())\n"
            "        if found := next(filter(None, all_owners), None):",
            FOREIGN,
        ),
        Defect(
            "the cursor is off by one",
            "bisect_right(self._order, cursor)",
            "bisect_left(self._order, cursor)",
            WALK,
        ),
        Defect(
            "has_more on a full last page",
            "len(found) > limit",
            "len(found) >= limit",
            MORE,
        ),
        Defect(
            "items by created_at",
            ".items.put(item.id, doc)",
            ".items.put(item.id, doc, sort_time(item.created_at))",
            ORDER,
        ),
        Defect(
            "add without upsert",
            "place = self._places.get(key)\n        if place is None or",
            "place = None\n        if place is None or",
            IN_PLACE,
        ),
        Defect(
            "delete leaves attachments",
            "del self._attachments[owner][attachment_id]",
            "pass",
            TAKEN_ALONG,
        ),
        Defect("no tombstone", "= now + TOMBSTONE_SECONDS", "= now", BARRED),
        Defect(
            "an alias is returned",
            "return dict(conversation.feedback) if",
            "return conversation.feedback if",
            VALUE + "what_came_back_may_be_changed",
        ),
        Defect(
            "feedback on what is there",
            "if not all(map(conversation.items.get, item_ids)):",
            "if not any(map(conversation.items.get, item_ids)):",
            ALL_OR_NONE,
        ),
        Defect("two leases at once", "if holder not in (None, turn_id):", "if False:", HELD),
        Defect(
            "a lease never ends",
            "return self.turn[0] if self.turn[1] > time.monotonic() else None",
            "return self.turn[0] or None",
            TURN + "a_lease_that_is_not_renewed_ends",
        ),
        Defect(
            "others run between the look and the write",
            "conversation.stopping = conversation.stopping and holder == turn_id",
            "await __import__('asyncio').sleep(0)",
            AT_ONCE + "of_many_claims_at_once_one_is_granted",
        ),
    ],
    "sqlite": [
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
            "feedback on what is there",
            "least = len(set(item_ids))",
            "least = 1",
            ALL_OR_NONE,
        ),
        Defect(
            "two leases at once",
            "WHERE turns.id = excluded.id OR turns.until <= ?4",
            "WHERE true",
            HELD,
        ),
        Defect(
            "one failure fails all of its commit",
            "        outcome = error\n    db.execute",
            "        raise\n    db.execute",
            ENGINE + "one_that_fails_does_not_fail_those_who_share_its_commit",
        ),
        Defect(
            "a newer schema is used",
            "if version > len(SCHEMA):",
            "if version < 0:",
            ENGINE + "a_newer_schema_is_refused_and_left_alone",
        ),
    ],
    "redis": [
        Defect(
            "all owners share their keys",
            '":{@" + quote(owner, safe="", errors="surrogatepass") + "}:"',
            '":{@}:"',
            FOREIGN,
        ),
        Defect("the cursor is off by one", "first = rank + 1", "first = rank", WALK),
        Defect(
            "has_more on a full last page",
            "table.remove(ids, limit + 1) and 1 or 0",
            "(table.remove(ids, limit + 1) or #ids == limit) and 1 or 0",
            MORE,
        ),
        Defect(
            "items in the order of their ids",
            "call('ZADD', sequence, last + 1, ARGV[2])",
            "call('ZADD', sequence, 0, ARGV[2])",
            WALK,
        ),
        Defect(
            "add without upsert",
            "if call('HSET', items, ARGV[2], ARGV[3]) == 1 then",
            "if call('HSET', items, ARGV[2], ARGV[3]) then",
            IN_PLACE,
        ),
        Defect(
            "delete leaves items",
            "call('UNLINK', sequence, items, feedback, lease)",
            "call('UNLINK', feedback, lease)",
            TAKEN_ALONG,
        ),
        Defect("no tombstone", "call('SET', gone, '', 'EX', ARGV[2])", "", BARRED),
        Defect(
            "feedback on what is there",
            "for i = 3, #ARGV do if",
            "for i = 3, 3 do if",
            ALL_OR_NONE,
        ),
        Defect(
            "two leases at once",
            "'NX', 'EX', ARGV[3]) then return 1",
            "'EX', ARGV[3]) then return 1",
            HELD,
        ),
        Defect(
            "a stop is not heard",
            "call('SET', lease, '-' .. held:sub(2), 'KEEPTTL')",
            "call('SET', lease, held, 'KEEPTTL')",
            STOPPED,
        ),
        Defect(
            "another turn's lease is released",
            "return (call('GET', lease) or ''):sub(2) == ARGV[2] and call('DEL', lease) or 0",
            "return call('DEL', lease)",
            TURN + "a_released_lease_may_be_taken",
        ),
        Defect(
            "an owner is not listed",
            'await self._ask("sadd", *self._entry(context, token))',
            "pass",
            OWNER + "owners_names_each_owner_once",
        ),
    ],
    "postgres": [
        Defect(
            "another owner's thread is found",
            "SELECT doc FROM chatkit.thread\n            WHERE owner = $1 AND id = $2",
            "SELECT doc FROM chatkit.thread\n            WHERE $1 <> '' AND id = $2",
            FOREIGN,
        ),
        Defect(
            "a dead connection is not replaced",
            "if fresh or time.monotonic() - started > ANSWER_SECONDS:",
            "if True:",
            ENGINE + "a_restart_that_nobody_saw_fails_no_call",
        ),
        Defect("the cursor is off by one", "AND seq > (SELECT", "AND seq >= (SELECT", WALK),
        Defect("has_more on a full last page", "len(rows) > limit\n", "len(rows) >= limit\n", MORE),
        Defect(
            "items by created_at",
            "ORDER BY seq ASC LIMIT $2",
            "ORDER BY doc::json ->> 'created_at' ASC LIMIT $2",
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
            "feedback on what is there",
            "AND cardinality($3) = (SELECT",
            "AND 0 < (SELECT",
            ALL_OR_NONE,
        ),
        Defect(
            "two leases at once",
            "WHERE old.turn_id = $3 OR old.until < clock_timestamp() RETURNING",
            "WHERE true RETURNING",
            HELD,
        ),
        Defect(
            "a stop is not heard", "AND turn_id = $3 AND NOT stopping", "AND turn_id = $3", STOPPED
        ),
        Defect(
            "no lock while adding",
            "FOR NO KEY UPDATE)\n            INSERT INTO chatkit.item",
            ")\n            INSERT INTO chatkit.item",
            AT_ONCE + "a_reader_at_the_tail_of_twelve_writers_misses_nothing",
        ),
        Defect(
            "the password is shown",
            'shown = re.sub(r"//([^:@/]*):.*@", r"//\\1:***@", url).partition("?")[0]',
            "shown = url",
            ENGINE + "a_start_without_the_engine_ends_with_the_setting_and_no_password",
        ),
    ],
    "values": [  # what is the same, letter by letter, in every store
        Defect(
            "NUL is stripped",
            "    return text\n\n\ndef _unstorable",
            '    return text.replace("\\\\u0000", "")\n\n\ndef _unstorable',
            VALUE + "any_text_comes_back_equal",
        ),
        Defect(
            "fields with their default are left out",
            "text = model.__pydantic_serializer__.to_json(model).decode()",
            "text = model.model_dump_json(exclude_defaults=True)",
            VALUE + "every_type_of_item_comes_back_equal",
        ),
        Defect(
            "half an emoji in a key is taken",
            'if "\\ufffd" in text and',
            'if "" in () and',
            VALUE + "a_lone_surrogate_in_a_thread_is_refused_by_name",
        ),
        Defect(
            "an id may hold a NUL",
            'return not any(c == "\\0" or',
            "return not any(",
            IDS + "an_id_that_no_engine_holds_is_refused_by_name_on_writes",
        ),
        Defect(
            "ids are short",
            'secrets.token_hex(10)}"',
            'secrets.token_hex(1)}"',
            IDS + "ids_have_the_prefix_of_the_sdk_and_96_bits_or_more",
        ),
        Defect(
            "times are cut to seconds",
            "// timedelta(microseconds=1)",
            "// timedelta(seconds=1) * 1_000_000",
            STORE + "threads_a_microsecond_apart_are_told_apart",
        ),
        Defect(
            "a naive time is the machine's",
            "moment if moment.tzinfo else moment.replace(tzinfo=UTC)",
            "moment.replace(tzinfo=UTC)",
            STORE + "threads_come_by_time_and_naive_counts_as_utc",
        ),
    ],
    "server": [
        Defect(
            "a forged cookie is believed",
            'return str(self._cookies.loads(request.cookies.get(COOKIE, "")))',
            'return str(self._cookies.loads_unsafe(request.cookies.get(COOKIE, ""))[1])',
            AUTH + "a_forged_cookie_is_a_new_user",
            "app/auth.py",
        ),
        Defect(
            "all who are anonymous are one",
            'user = f"anon-{secrets.token_hex(12)}"',
            'user = "anon"',
            USERS + "nothing_of_another_user_is_seen_changed_or_confirmed",
            "app/auth.py",
        ),
        Defect(
            "a token for another app is taken",
            "leeway=LEEWAY_SECONDS,\n            options={",
            'leeway=LEEWAY_SECONDS,\n            options={"verify_aud": False, ',
            AUTH + "a_bad_token_is_refused",
            "app/auth.py",
        ),
        Defect(
            "a foreign page may use the cookie",
            "if not own and origin not in",
            "if own and origin not in",
            AUTH + "a_foreign_page_cannot_use_the_cookie",
            "app/auth.py",
        ),
        Defect(
            "headers go out before the first event",
            "            await turn.first()\n",
            "",
            ANSWER + "a_second_message_during_an_answer_is_refused",
            "app/server.py",
        ),
        Defect(
            "no lease",
            "while not await self._store.claim_turn(thread_id, turn.id, context):",
            "while False:",
            ANSWER + "a_second_message_during_an_answer_is_refused",
            "app/server.py",
        ),
        Defect(
            "no lease is renewed",
            "if turn.running and turn.thread_id and not await self._renew(turn):",
            "if False:",
            ANSWER + "an_answer_keeps_its_lease_and_hears_of_a_stop_elsewhere",
            "app/streaming.py",
        ),
        Defect(
            "the lease is kept",
            "await self._store.release_turn(turn.thread_id, turn.id, context)",
            "pass",
            ANSWER + "a_message_right_after_stop_is_answered",
            "app/server.py",
        ),
        Defect(
            "a stop drops what was said",
            "in filter(has_content, pending.values()):",
            "in ():",
            ANSWER + "a_stopped_answer_keeps_everything_that_was_received",
            "app/server.py",
        ),
        Defect(
            "a stop leaves no marker",
            "await super().handle_stream_cancelled(thread, [], context)",
            "pass",
            ANSWER + "a_stopped_answer_keeps_everything_that_was_received",
            "app/server.py",
        ),
        Defect(
            "a widget is kept as it began",
            "kept.items.get(item.id, item)",
            "item",
            ASSISTANT + "a_widget_is_kept_as_it_was_when_the_user_stopped",
            "app/server.py",
        ),
        Defect(
            "the error of a deleted thread is shown",
            "if not await self._exists(turn.thread_id, context):",
            "if False:",
            ANSWER + "a_thread_that_another_worker_deletes_ends_its_answer_quietly",
            "app/server.py",
        ),
        Defect(
            "a closed connection stops nothing",
            'if self._on_disconnect == "cancel":',
            "if False:",
            ANSWER + "a_stopped_answer_keeps_everything_that_was_received",
            "app/streaming.py",
        ),
        Defect(
            "a second stop cuts the first one's clean-up",
            " and not self.task.cancelling():",
            ":",
            ANSWER + "a_second_stop_does_not_cut_the_clean_up_of_the_first",
            "app/streaming.py",
        ),
        Defect(
            "answers outlive the store",
            "await asyncio.wait(late)",
            "pass",
            ANSWER + "the_app_ends_its_answers_before_it_closes_the_store",
            "app/streaming.py",
        ),
        Defect(
            "anybody stops an answer",
            "if (t.user, t.thread_id) == (user, thread_id)",
            "if t.thread_id == thread_id",
            ANSWER + "finish_can_still_be_stopped_by_its_owner_alone",
            "app/streaming.py",
        ),
        Defect(
            "no limit of answers at once",
            "if self._users[turn.user] >= self._per_user or",
            "if",
            HTTP + "one_user_has_so_many_answers_at_once",
            "app/streaming.py",
        ),
        Defect(
            "requests are not counted",
            "if not self._limiter.hit(self._requests, name):",
            "if not self._limiter.test(self._requests, name):",
            HTTP + "requests_past_the_limit_wait",
            "app/limits.py",
        ),
        Defect(
            "a body without a length has no limit",
            "if len(body) > limit:",
            "if len(body) > limit * 1000:",
            HTTP + "a_large_body_is_refused_before_it_is_read",
            "app/main.py",
        ),
        Defect(
            "a locked thread takes messages",
            "if isinstance(thread.status, t.LockedStatus | t.ClosedStatus):",
            "if isinstance(thread.status, t.ClosedStatus):",
            ANSWER + "a_locked_thread_takes_no_message",
            "app/checks.py",
        ),
        Defect(
            "an address is for any file",
            "if (what, which) != (purpose, attachment_id) or",
            "if what is None or",
            FILE + "an_address_is_for_one_file_one_purpose_and_a_while",
            "app/links.py",
        ),
        Defect(
            "an address never ends",
            "or until < time.time():",
            "or until is None:",
            FILE + "an_address_is_for_one_file_one_purpose_and_a_while",
            "app/links.py",
        ),
        Defect(
            "each file has the quota for itself",
            "if stored + size > limit:",
            "if size > limit:",
            FILE + "all_files_of_a_user_have_a_quota",
            "app/attachments.py",
        ),
        Defect(
            "a file is what its name says",
            "if contradicts(kind, claimed, name):",
            "if kind is None:",
            FILE + "what_is_refused_leaves_nothing",
            "app/attachments.py",
        ),
    ],
}
