"""Defects to sow in the app itself: who may do what, and files."""

from .base import Defect

AUTH = "tests/test_auth.py::test_"
TOKEN = "tests/test_tokens.py::test_"
HTTP = "tests/test_protocol.py::test_"
LIMITS = "tests/test_limits.py::test_"
FILE = "tests/test_files.py::test_"
SWEEP = "tests/test_sweep.py::test_"
THREAD = "tests/test_threads.py::test_"
USERS = "tests/test_users.py::test_"
UPLOADS = "tests/test_uploads.py::test_"

DEFECTS = [
    Defect(
        "a forged cookie is believed",
        'user = str(self._cookies.loads(brought.get(self._cookie, "")))',
        'user = str(self._cookies.loads_unsafe(brought.get(self._cookie, ""))[1])',
        AUTH + "a_forged_cookie_is_a_new_user",
        "app/auth.py",
    ),
    Defect(
        "another host chooses the cookie",
        'each.strip(" ").partition("=")',
        'each.strip().partition("=")',
        AUTH + "another_host_of_the_domain_cannot_choose_the_user",
        "app/auth.py",
    ),
    Defect(
        "all anonymous users are one",
        'user = user or f"anon-{secrets.token_hex(12)}"',
        'user = user or "anon"',
        USERS + "nothing_of_another_user_is_seen_changed_or_confirmed",
        "app/auth.py",
    ),
    Defect(
        "a token for another app is accepted",
        "leeway=30,\n            options={",
        'leeway=30,\n            options={"verify_aud": False, ',
        TOKEN + "a_bad_token_is_refused",
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
        "an issuer that fails locks everybody out",
        "lifespan=KEYS_SECONDS",
        "lifespan=1",
        TOKEN + "a_failing_issuer_locks_out_nobody_whose_key_is_known",
        "app/auth.py",
    ),
    Defect(
        "requests are not counted",
        "self._requests.spend(name, 1)",
        "self._requests.spend(name, 0)",
        LIMITS + "requests_past_the_limit_wait",
        "app/limits.py",
    ),
    Defect(
        "a body without a length has no limit",
        "if size > limit:",
        "if size > limit * 1000:",
        HTTP + "a_large_body_is_refused_before_it_is_read",
        "app/uploads.py",
    ),
    Defect(
        "a locked thread takes messages",
        "if isinstance(thread.status, t.LockedStatus | t.ClosedStatus):",
        "if isinstance(thread.status, t.ClosedStatus):",
        THREAD + "a_locked_thread_takes_no_message",
        "app/checks.py",
    ),
    Defect(
        "an address opens any file",
        "if (what, which) == (purpose, attachment_id) and",
        "if what and which and",
        FILE + "an_address_is_for_one_file_one_purpose_and_a_while",
        "app/links.py",
    ),
    Defect(
        "an address never ends",
        "and until >= time.time():",
        "and until:",
        FILE + "an_address_is_for_one_file_one_purpose_and_a_while",
        "app/links.py",
    ),
    Defect(
        "each file has the quota to itself",
        "if sum(sizes) > limit or",
        "if size > limit or",
        FILE + "all_files_of_a_user_have_a_quota",
        "app/attachments.py",
    ),
    Defect(
        "a file is what its sender says",
        "if kind not in self._settings.file_types:",
        "if announced.mime_type not in self._settings.file_types:",
        "tests/test_uploads.py::test_what_is_refused_leaves_nothing",
        "app/attachments.py",
    ),
    Defect(
        "nobody sweeps",
        "group.create_task(files.sweep_hourly())",
        "group.create_task(asyncio.sleep(0))",
        SWEEP + "the_app_sweeps_by_itself",
        "app/main.py",
    ),
    Defect(
        "a sweep with the wrong store deletes files",
        "if gone > max(kept, 2) and",
        "if False and",
        SWEEP + "sweep_with_the_wrong_store_deletes_nothing",
        "app/attachments.py",
    ),
    Defect(
        "every replica sweeps",
        "if not 0 < time.time() - await self._swept_at() < 1800:",
        "if True:",
        SWEEP + "the_app_sweeps_by_itself",
        "app/attachments.py",
    ),
    Defect(
        "bytes of a file without a record stay",
        "await self.delete_attachment(announced.id, context)\n            raise",
        "pass\n            raise",
        UPLOADS + "a_file_whose_record_cannot_be_stored_leaves_nothing",
        "app/attachments.py",
    ),
    Defect(
        "a picture may be read in endless pieces",
        "if (self.pieces - FREE_PIECES) * PIECE_BYTES > self.getbuffer().nbytes:",
        "if self.pieces < 0:",
        "tests/test_filetypes.py::test_an_image_with_endless_comments_is_refused",
        "app/filetypes.py",
    ),
    Defect(
        "a million values are built",
        'if body.count(b",") > (most := max(MAX_COMMAS, settings.max_text_chars)):',
        "if body is None:",
        LIMITS + "a_request_of_a_million_values_is_refused_unread",
        "app/checks.py",
    ),
    Defect(
        "a page signs as many addresses as it names",
        "PREVIEW.sub(address, data, MAX_SIGNED)",
        "PREVIEW.sub(address, data)",
        FILE + "a_page_of_made_up_images_holds_nobody_up",
        "app/links.py",
    ),
    Defect(
        "dictations at once are all held",
        "asyncio.Semaphore(4)",
        "asyncio.Semaphore(40)",
        LIMITS + "dictations_at_once_share_the_limits",
        "app/attachments.py",
    ),
    Defect(
        "a dictation counts when it is answered",
        "self._limits.tokens.spend(owner_of(context), len(audio_input.data) // 1000)",
        "pass",
        LIMITS + "dictations_at_once_share_the_limits",
        "app/server.py",
    ),
    Defect(
        "files that the model read do not count",
        "return len(data) // 333",
        "return 0",
        LIMITS + "a_stopped_answer_counts_the_files_that_it_read",
        "app/history.py",
    ),
    Defect(
        "apps on one host have one cookie",
        'f"chat_user_{sha256(key.encode()).hexdigest()[:8]}"',
        '"chat_user"',
        AUTH + "two_apps_on_one_host_keep_their_own_users",
        "app/auth.py",
    ),
    Defect(
        "a trace has a file's address",
        'scope["path"].startswith("/files/")',
        "False",
        "tests/test_tracing.py::test_a_teams_own_tracer_gets_no_files_address",
        "app/logs.py",
    ),
]
