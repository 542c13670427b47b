"""What a sown defect is, and the app's tests that several of them name."""

from typing import NamedTuple


class Defect(NamedTuple):
    """What is changed in which file, and the test that must fail then."""

    name: str
    old: str
    new: str
    test: str
    file: str = "app/store.py"


STORE = "tests/test_store.py::test_"
TURN = "tests/test_store_turns.py::test_"
VALUE = "tests/test_store_values.py::test_"
OWNER = "tests/test_store_isolation.py::test_"
IDS = "tests/test_store_ids.py::test_"
AT_ONCE = "tests/test_store_concurrency.py::test_"
ENGINE = "tests/test_store_engine.py::test_"

FOREIGN = OWNER + "what_is_foreign_answers_as_what_is_unknown"
WALK = STORE + "walk_gives_each_item_once_when_fifty_times_are_equal"
MORE = STORE + "page_says_has_more_only_while_more_follow"
ORDER = STORE + "items_come_in_the_order_of_adding_not_of_time"
BY_TIME = STORE + "threads_come_by_time_and_naive_counts_as_utc"
IN_PLACE = STORE + "putting_again_replaces_in_place"
LEFT = STORE + "deleting_an_item_leaves_the_others"
TAKEN_ALONG = STORE + "deleting_a_thread_takes_its_items_and_attachments_along"
BARRED = TURN + "a_deleted_thread_is_not_saved_again"
ALL_OR_NONE = TURN + "feedback_on_a_missing_item_stores_none_of_it"
HELD = TURN + "one_turn_at_a_time_holds_the_lease"
STOPPED = TURN + "a_stopped_turn_hears_of_it_at_its_next_renewal"
