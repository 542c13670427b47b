"""Defects to sow in what is the same, character for character, in every store."""

from .base import IDS, STORE, VALUE, Defect

DEFECTS = [
    Defect(
        "NUL is stripped",
        "return page[1:-1]",
        'return page[1:-1].replace(b"\\\\u0000", b"")',
        VALUE + "any_text_comes_back_equal",
    ),
    Defect(
        "fields with their default are left out",
        "page = kind.dump_json([record], warnings=False)",
        "page = kind.dump_json([record], exclude_defaults=True)",
        VALUE + "every_type_of_item_comes_back_equal",
    ),
    Defect(
        "half an emoji in a key is accepted",
        "STRICT.encode(value).encode()",
        "STRICT.encode(value)",
        VALUE + "a_lone_surrogate_in_a_thread_is_refused_by_name",
    ),
    Defect(
        "what is stored cannot be read",
        "kind.validate_json(page)",
        "pass",
        VALUE + "what_is_stored_can_be_read_again",
    ),
    Defect(
        "an answer may hold anything",
        "if type(part.text) is not str or part.annotations != NO_ANNOTATIONS:",
        "if part.annotations:",
        VALUE + "an_answer_with_a_wrong_type_is_refused_by_name",
    ),
    Defect(
        "NaN is stored as null",
        "allow_nan=False",
        "allow_nan=True",
        VALUE + "a_number_that_is_not_finite_is_refused_by_name",
    ),
    Defect(
        "an id may hold a NUL",
        're.compile("[\\0',
        're.compile("[',
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
        "moment if moment.tzinfo else moment.astimezone()",
        STORE + "threads_come_by_time_and_naive_counts_as_utc",
    ),
]
