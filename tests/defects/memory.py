"""Defects to sow in the store that keeps everything in memory."""

from .base import (
    ALL_OR_NONE,
    AT_ONCE,
    BARRED,
    BY_TIME,
    FOREIGN,
    HELD,
    IN_PLACE,
    LEFT,
    MORE,
    ORDER,
    TAKEN_ALONG,
    TURN,
    VALUE,
    WALK,
    Defect,
)

DEFECTS = [
    Defect(
        "another owner's thread is found",
        "if found := self._conversations.get((owner_of(context), thread_id)):",
        "every = self._conversations.items()\n"
        "        if found := next((each for (_, name), each in every if name == thread_id), None):",
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
        "place = self._places.get(key)\n        if place is None:\n",
        "place = None\n        if place is None:\n",
        IN_PLACE,
    ),
    Defect(
        "what comes after a deleted item moves",
        "at, self._whole = self._at(place), False\n            del",
        "at = self._at(place)\n            del",
        LEFT,
    ),
    Defect(
        "what comes after an older thread moves",
        "at, self._whole = bisect_left(self._order, place), False",
        "at = bisect_left(self._order, place)",
        BY_TIME,
    ),
    Defect(
        "delete leaves attachments",
        "await self.delete_attachment(attachment.id, context)",
        "pass",
        TAKEN_ALONG,
    ),
    Defect("no tombstone", "= now + TOMBSTONE_SECONDS", "= now", BARRED),
    Defect(
        "an alias is returned",
        "return dict(self._look(thread_id, context).feedback)",
        "return self._look(thread_id, context).feedback",
        VALUE + "what_came_back_may_be_changed",
    ),
    Defect(
        "feedback is stored on some of the items",
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
        "others run between the read and the write",
        "conversation.stopping = conversation.stopping and holder == turn_id",
        "await __import__('asyncio').sleep(0)",
        AT_ONCE + "only_one_of_many_claims_at_once_is_granted",
    ),
    Defect(
        "others set the title between the read and the write",
        'conversation.doc = dump(thread.model_copy(update={"title": new}), THREADS)',
        "await __import__('asyncio').sleep(0)\n"
        '        conversation.doc = dump(thread.model_copy(update={"title": new}), THREADS)',
        AT_ONCE + "only_one_of_many_titles_at_once_is_set",
    ),
    Defect(
        "others take the attachment between the read and the write",
        "held[attachment.id] = thread_id, doc",
        "await __import__('asyncio').sleep(0)\n        held[attachment.id] = thread_id, doc",
        AT_ONCE + "an_attachment_that_many_threads_take_at_once_goes_to_one",
    ),
]
