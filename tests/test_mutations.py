"""Defects sown one at a time: an app's own tests must catch each, by the test that names it.

Run by `make test-mutation`. A defect that no longer finds its place in the source is a failure too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from baked import BakedProject

pytestmark = [pytest.mark.mutation, pytest.mark.full]


@dataclass(frozen=True)
class Defect:
    """What is changed in which file, and the test that must fail then."""

    name: str
    old: str
    new: str
    test: str
    path: str = "app/store.py"


ITEMS, LEASES = "test_store.py::test_", "test_store_turns.py::test_"
VALUES, OWNERS = "test_store_values.py::test_", "test_store_isolation.py::test_"
FOREIGN = OWNERS + "each_owner_reads_its_own_under_the_same_ids"
IN_PLACE = ITEMS + "adding_again_replaces_in_place"
WALK = ITEMS + "walk_gives_each_item_once_when_fifty_times_are_equal"
MORE = ITEMS + "page_says_has_more_only_while_more_follow"
ORDER = ITEMS + "items_come_in_the_order_of_adding_not_of_time"
TAKEN_ALONG = ITEMS + "deleting_a_thread_takes_its_items_and_attachments_along"
BARRED = LEASES + "a_deleted_thread_is_not_saved_again"
HELD = LEASES + "one_turn_at_a_time_holds_the_lease"
STOPPED = LEASES + "a_stopped_turn_hears_of_it_at_its_next_renewal"
TITLE = LEASES + "a_title_is_set_while_it_is_what_was_read"

EVERYWHERE = [
    Defect(
        "NUL is stripped",
        "    return text\n\n\ndef _unstorable",
        '    return text.replace("\\\\u0000", "")\n\n\ndef _unstorable',
        VALUES + "any_text_comes_back_equal",
    ),
    Defect(
        "fields with their default are left out",
        "text = model.model_dump_json()",
        "text = model.model_dump_json(exclude_defaults=True)",
        VALUES + "every_type_of_item_comes_back_equal",
    ),
    Defect(
        "an id may hold a NUL",
        "return text is None or not any(",
        "return True or not any(",
        "test_store_ids.py::test_an_id_that_no_engine_holds_is_refused_by_name_on_writes",
    ),
    Defect(
        "times are cut to seconds",
        "// timedelta(microseconds=1)",
        "// timedelta(seconds=1) * 1_000_000",
        ITEMS + "threads_a_microsecond_apart_are_told_apart",
    ),
    Defect(
        "ids are short",
        'secrets.token_hex(10)}"',
        'secrets.token_hex(1)}"',
        "test_store_ids.py::test_ids_have_the_prefix_of_the_sdk_and_96_bits_or_more",
    ),
]
STORES = {
    "memory": [
        Defect("the owner is not looked at", "owner_of(context)", "str()", FOREIGN),
        Defect(
            "the cursor is off by one",
            "bisect_right(self._places, cursor)",
            "bisect_left(self._places, cursor)",
            WALK,
        ),
        Defect(
            "items by created_at",
            ".items.put(item.id, doc)",
            ".items.put(item.id, doc, sort_time(item.created_at))",
            ORDER,
        ),
        Defect(
            "add without upsert",
            "self._held[key][0][1] if key in self._held else self._count",
            "self._count",
            IN_PLACE,
        ),
        Defect(
            "has_more on a full last page",
            "if len(found) > limit else None",
            "if len(found) >= limit else None",
            MORE,
        ),
        Defect(
            "delete leaves attachments", "self._attachments[owner] = kept", "del kept", TAKEN_ALONG
        ),
        Defect(
            "no tombstone",
            "if self._tombstones.get((owner_of(context), thread.id), 0) > ",
            "if 0 > ",
            BARRED,
        ),
        Defect(
            "two leases at once",
            "if holder not in (None, turn_id):",
            "if False:",
            HELD,
        ),
        Defect(
            "a title that changed is replaced",
            "if not thread or thread.title != old:",
            "if not thread:",
            TITLE,
        ),
    ],
    "sqlite": [
        Defect(
            "the owner is not looked at",
            'return owner_of(context).encode("utf-8", "surrogatepass")',
            'return b""',
            FOREIGN,
        ),
        Defect(
            "the cursor is off by one",
            "WHERE key > {bounds[0]} AND",
            "WHERE key >= {bounds[0]} AND",
            WALK,
        ),
        Defect(
            "items by created_at",
            'ORDER BY key {"DESC"',
            "ORDER BY json_extract(doc, '$.created_at') {\"DESC\"",
            ORDER,
        ),
        Defect(
            "add without upsert",
            "(thread, id) DO UPDATE SET doc = excluded.doc",
            "(thread, id) DO UPDATE SET doc = excluded.doc, key = excluded.key",
            IN_PLACE,
        ),
        Defect(
            "has_more on a full last page",
            "more, docs = count > limit,",
            "more, docs = count >= limit,",
            MORE,
        ),
        Defect(
            "delete leaves what hangs on a thread",
            'writes.execute("PRAGMA foreign_keys = ON")',
            "",
            TAKEN_ALONG,
        ),
        Defect("no tombstone", "AND until > ?5)", "AND until > ?5 + 1e12)", BARRED),
        Defect(
            "two leases at once",
            "WHERE turns.id = excluded.id OR turns.until <= ?4",
            "WHERE true",
            HELD,
        ),
        Defect(
            "a stop is not heard",
            "AND id = ?3 AND until > ?4 AND NOT stopping",
            "AND id = ?3 AND until > ?4",
            STOPPED,
        ),
    ],
    "redis": [
        Defect("the owner is not looked at", "owner_of(context)", "str()", FOREIGN),
        Defect("the cursor is off by one", "first = rank + 1", "first = rank", WALK),
        Defect(
            "add without upsert",
            "if call('HSET', items, ARGV[2], ARGV[3]) == 1 then",
            "if call('HSET', items, ARGV[2], ARGV[3]) then",
            IN_PLACE,
        ),
        Defect(
            "items in the order of their ids",
            "call('ZADD', sequence, last + 1, ARGV[2])",
            "call('ZADD', sequence, last * 0, ARGV[2])",
            ORDER,
        ),
        Defect(
            "has_more on a full last page",
            "table.remove(ids, limit + 1) and 1 or 0",
            "(table.remove(ids, limit + 1) or #ids == limit) and 1 or 0",
            MORE,
        ),
        Defect(
            "delete leaves items",
            "call('UNLINK', sequence, items, feedback, lease)",
            "call('UNLINK', feedback, lease)",
            TAKEN_ALONG,
        ),
        Defect("no tombstone", "call('SET', gone, '', 'EX', ARGV[2])", "", BARRED),
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
    ],
    "postgres": [
        Defect(
            "the owner is not looked at",
            'return owner_of(context).encode("unicode_escape").decode()',
            'return ""',
            FOREIGN,
        ),
        Defect(
            "the cursor is off by one",
            'cursor = """AND seq > (SELECT seq',
            'cursor = """AND seq >= (SELECT seq',
            WALK,
        ),
        Defect(
            "items by created_at",
            "ORDER BY seq ASC LIMIT $2",
            "ORDER BY doc::json ->> 'created_at' ASC LIMIT $2",
            ORDER,
        ),
        Defect(
            "add without upsert",
            "ON CONFLICT (owner, thread_id, id) DO UPDATE SET doc = $4 RETURNING",
            "ON CONFLICT (owner, thread_id, id) DO UPDATE SET doc = $4, seq = DEFAULT RETURNING",
            IN_PLACE,
        ),
        Defect("has_more on a full last page", "len(rows) > limit\n", "len(rows) >= limit\n", MORE),
        Defect(
            "no tombstone",
            "WHERE old.deleted IS NULL OR old.deleted <",
            "WHERE true OR old.deleted <",
            BARRED,
        ),
        Defect(
            "no lock while adding",
            "FOR NO KEY UPDATE)\n            INSERT INTO chatkit.item",
            ")\n            INSERT INTO chatkit.item",
            "test_store_concurrency.py::test_a_reader_at_the_tail_of_twelve_writers_misses_nothing",
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
    ],
}
SERVER = [
    Defect(
        "a forged cookie is believed",
        "return str(self._cookies.loads(",
        "return str(self._cookies.loads_unsafe(",
        "test_auth.py::test_a_forged_cookie_is_a_new_user",
        "app/auth.py",
    ),
    Defect(
        "a foreign page may use the cookie",
        "if not own and origin not in",
        "if False and origin not in",
        "test_auth.py::test_a_foreign_page_cannot_use_the_cookie",
        "app/auth.py",
    ),
    Defect(
        "a token for any app is taken",
        "leeway=LEEWAY_SECONDS,\n            options={",
        'leeway=LEEWAY_SECONDS,\n            options={"verify_aud": False, ',
        "test_auth.py::test_a_bad_token_is_refused",
        "app/auth.py",
    ),
    Defect(
        "the first event is not awaited",
        "            await turn.first()\n",
        "",
        "test_turns.py::test_a_second_message_during_an_answer_is_refused",
        "app/server.py",
    ),
    Defect(
        "what was said before a stop is dropped",
        "            if not has_content(item):",
        "            if item:",
        "test_turns.py::test_a_stopped_answer_keeps_everything_that_was_received",
        "app/server.py",
    ),
    Defect(
        "no lease",
        "while not await self._store.claim_turn(thread_id, turn.id, context):",
        "while False:",
        "test_turns.py::test_a_second_message_during_an_answer_is_refused",
        "app/server.py",
    ),
    Defect(
        "the lease is kept",
        "await self._store.release_turn(turn.thread_id, turn.id, context)",
        "pass",
        "test_turns.py::test_a_message_right_after_stop_is_answered",
        "app/server.py",
    ),
    Defect(
        "a closed connection always stops the answer",
        'if self._on_disconnect == "cancel":',
        "if True:",
        "test_turns.py::test_finish_stores_the_whole_answer_of_a_closed_connection",
        "app/streaming.py",
    ),
    Defect(
        "answers outlive the store",
        "_, late = await asyncio.wait(tasks, timeout=grace)",
        "return",
        "test_turns.py::test_the_app_ends_its_answers_before_it_closes_the_store",
        "app/streaming.py",
    ),
    Defect(
        "anybody stops an answer",
        "if (t.user, t.thread_id) == (user, thread_id)",
        "if t.thread_id == thread_id",
        "test_turns.py::test_finish_can_still_be_stopped_by_its_owner_alone",
        "app/streaming.py",
    ),
    Defect(
        "no limit of answers",
        "if self._users[turn.user] >= self._per_user or",
        "if",
        "test_protocol.py::test_one_user_has_so_many_answers_at_once",
        "app/streaming.py",
    ),
    Defect(
        "requests are not counted",
        "if not self._limiter.hit(self._requests, name):",
        "if False:",
        "test_protocol.py::test_requests_past_the_limit_wait",
        "app/limits.py",
    ),
    Defect(
        "an address works for any file",
        "if (what, which) != (purpose, attachment_id) or",
        "if what is None or",
        "test_files.py::test_an_address_is_for_one_file_one_purpose_and_a_while",
        "app/links.py",
    ),
    Defect(
        "an address never ends",
        "or until < time.time():",
        "or until is None:",
        "test_files.py::test_an_address_is_for_one_file_one_purpose_and_a_while",
        "app/links.py",
    ),
    Defect(
        "a locked thread takes messages",
        "if isinstance(thread.status, LockedStatus | ClosedStatus):",
        "if False:",
        "test_turns.py::test_a_locked_thread_takes_no_message",
        "app/checks.py",
    ),
]
DEFECTS = [
    pytest.param(
        storage,
        defect,
        id=f"{storage}: {defect.name}",
        marks=pytest.mark.xdist_group(f"mutation-{storage}"),
    )
    for storage, own in STORES.items()
    for defect in [*own, *EVERYWHERE, *(SERVER if storage == "memory" else [])]
]


@pytest.fixture(scope="module")
def sound(bake: Callable[..., BakedProject]) -> Callable[[str], BakedProject]:
    """Return a function that bakes an app with a storage, once, and sees its named tests pass."""
    apps: dict[str, BakedProject] = {}

    def bake_once(storage: str) -> BakedProject:
        if storage not in apps:
            apps[storage] = bake(storage_type=storage)
            defects = [p.values[1] for p in DEFECTS if p.values[0] == storage]
            named = sorted({f"tests/{defect.test}" for defect in defects})
            apps[storage].check("uv", "run", "pytest", *named)
        return apps[storage]

    return bake_once


@pytest.mark.parametrize(("storage", "defect"), DEFECTS)
def test_the_defect_is_caught(
    sound: Callable[[str], BakedProject], storage: str, defect: Defect
) -> None:
    """The named test fails while the defect is there."""
    project = sound(storage)
    path = project.path / defect.path
    text = path.read_text(encoding="utf-8")
    assert defect.old in text, "the source has changed: sow the defect anew"
    path.write_text(text.replace(defect.old, defect.new), encoding="utf-8")
    try:
        done = project.run("uv", "run", "pytest", "-x", f"tests/{defect.test}", timeout=120)
    finally:
        path.write_text(text, encoding="utf-8")
    assert done.returncode == 1 or "killed after" in done.stdout, done.stdout
