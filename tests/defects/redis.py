"""Defects to sow in the Redis store."""

from .base import (
    ALL_OR_NONE,
    AT_ONCE,
    BARRED,
    FOREIGN,
    HELD,
    IN_PLACE,
    MORE,
    OWNER,
    STOPPED,
    TAKEN_ALONG,
    TURN,
    WALK,
    Defect,
)

DEFECTS = [
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
        "feedback is stored on some of the items",
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
        'await self._ask("SADD", *self._entry(context, token))',
        "pass",
        OWNER + "owners_names_each_owner_once",
    ),
    Defect(
        "a thread that is saved again gets a second place",
        "local place = moment .. (old and old:sub(19, 30) or number(count)) .. thread\n"
        "if old then call('ZREM', order, old) end",
        "local place = moment .. number(count) .. thread",
        AT_ONCE + "one_thread_saved_many_times_at_once_is_one_thread",
    ),
    Defect(
        "feedback outlives its item",
        "call('HDEL', feedback, ARGV[2])\nreturn",
        "return",
        AT_ONCE + "feedback_that_races_a_delete_leaves_no_orphan",
    ),
    Defect(
        "a file is added to a thread that is gone",
        "if home ~= '' and call('HEXISTS', threads, thread) == 0 then return false end\n",
        "",
        AT_ONCE + "adds_that_race_a_delete_leave_no_orphan",
    ),
]
