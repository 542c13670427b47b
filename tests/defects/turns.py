"""Defects to sow in the app itself: the way of an answer."""

from .base import Defect

ENDING = "tests/test_endings.py::test_"
EVENTS = "tests/test_events.py::test_"
LIMITS = "tests/test_limits.py::test_"
ANSWER = "tests/test_turns.py::test_"
SHUTDOWN = "tests/test_shutdown.py::test_"
THREAD = "tests/test_threads.py::test_"
ASSISTANT = "tests/test_assistant.py::test_"
MODELS = "tests/test_models.py::test_"
HISTORY = "tests/test_history.py::test_"
TRACES = "tests/test_tracing.py::test_"

DEFECTS = [
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
        "await self._store.renew_turn(turn.thread_id, turn.id, context_for(turn.user)):",
        "await asyncio.sleep(0, True):",
        ANSWER + "an_answer_keeps_its_lease_and_hears_of_a_stop_elsewhere",
        "app/streaming.py",
    ),
    Defect(
        "the lease is kept",
        "await self._store.release_turn(thread_id, turn.id, context)",
        "pass",
        ANSWER + "a_message_right_after_stop_is_answered",
        "app/server.py",
    ),
    Defect(
        "a stop drops what was said",
        "items = [*self.unsaved.values()]",
        "items = []",
        ANSWER + "a_stopped_answer_keeps_everything_that_was_received",
        "app/events.py",
    ),
    Defect(
        "a stop leaves no marker",
        "await patiently(super().handle_stream_cancelled, thread, [], context)",
        "pass",
        ANSWER + "a_stopped_answer_keeps_everything_that_was_received",
        "app/server.py",
    ),
    Defect(
        "a widget is kept as it began",
        "case t.ThreadItemUpdatedEvent() if begun := self.unsaved.get(event.item_id):",
        "case t.ThreadItemUpdatedEvent() if begun := None:",
        ASSISTANT + "a_widget_is_kept_as_it_was_when_the_user_stopped",
        "app/events.py",
    ),
    Defect(
        "the error of a deleted thread is shown",
        "elif turn.events and isinstance(error, NotFoundError):",
        "elif False:",
        THREAD + "a_thread_that_another_worker_deletes_ends_its_answer_quietly",
        "app/server.py",
    ),
    Defect(
        "a retry that fails costs the answer",
        "behind.insert(0, item)",
        "pass",
        ENDING + "a_retry_that_fails_gives_the_answer_back",
        "app/server.py",
    ),
    Defect(
        "a retry that is stopped costs the answer",
        "self.replaced, True",
        "self.replaced, False",
        ENDING + "a_retry_that_is_stopped_keeps_the_answer_until_a_word_has_come",
        "app/events.py",
    ),
    Defect(
        "a run that fails drops what its tools have sent",
        "end, chat.client_tool_call = error, None",
        "raise",
        ENDING + "a_widget_is_stored_to_its_end_when_the_run_fails_behind_it",
        "app/run.py",
    ),
    Defect(
        "a tool that changes the thread costs its title",
        'for name in ("title", ',
        "for name in (",
        THREAD + "a_title_stays_when_a_tool_changes_the_thread",
        "app/server.py",
    ),
    Defect(
        "a tool that changes the thread unlocks it",
        '"title", "status", "allowed',
        '"title", "allowed',
        ASSISTANT + "what_others_change_of_a_thread_stays",
        "app/server.py",
    ),
    Defect(
        "a tool's metadata are the thread's",
        "thread.metadata = others | {",
        "thread.metadata = new or {",
        ASSISTANT + "what_others_change_of_a_thread_stays",
        "app/server.py",
    ),
    Defect(
        "a failed answer counts as done",
        "turn.failed = True",
        "turn.failed = False",
        MODELS + "a_fault_is_one_sentence_and_the_thread_stays_usable",
        "app/server.py",
    ),
    Defect(
        "an agent without a model asks any server",
        "agents.set_default_openai_client(client, use_for_tracing=False)",
        "",
        MODELS + "an_agent_without_a_model_asks_the_apps_server",
        "app/model.py",
    ),
    Defect(
        "what a tool ends the answer with is not told",
        "if not output:",
        "if not state.answered:",
        ASSISTANT + "a_tool_may_end_the_answer",
        "app/run.py",
    ),
    Defect(
        "what ends first is stored first",
        "for begun in filter(has_content, earlier):",
        "for begun in ():",
        EVENTS + "what_began_first_is_stored_first",
        "app/events.py",
    ),
    Defect(
        "a closed connection stops nothing",
        "if not self._finishes:",
        "if False:",
        ANSWER + "a_stopped_answer_keeps_everything_that_was_received",
        "app/streaming.py",
    ),
    Defect(
        "a second stop cuts the first one's clean-up",
        "(self.finishing or self.task.cancelling() or self.task.done())",
        "(self.finishing or self.task.done())",
        ANSWER + "a_second_stop_does_not_cut_the_clean_up_of_the_first",
        "app/streaming.py",
    ),
    Defect(
        "a stop in the last instant keeps the lease",
        "turn.finishing = True  # a stop",
        "pass  # a stop",
        ANSWER + "who_leaves_with_the_last_event_leaves_no_lease",
        "app/server.py",
    ),
    Defect(
        "answers outlive the store",
        "await asyncio.gather(*(turn.task for turn in self.running), return_exceptions=True)",
        "pass",
        SHUTDOWN + "the_app_ends_its_answers_before_it_closes_the_store",
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
        "if of_user >= limits.turns_per_user or",
        "if",
        LIMITS + "so_many_answers_are_given_at_once",
        "app/streaming.py",
    ),
    Defect(
        "what a tool answered is forgotten",
        "return _call(item.id, name, args, str(output))",
        'return _call(item.id, name, args, "")',
        MODELS + "ten_turns_with_tools_reach_the_model_whole",
        "app/history.py",
    ),
    Defect(
        "a long turn loses its question",
        "while more and not whole:",
        "for _ in range(1):",
        HISTORY + "the_newest_turn_begins_with_its_question_whatever_its_items",
        "app/history.py",
    ),
    Defect(
        "a thumb is thrown away",
        "await self._store.save_feedback(thread_id, item_ids, feedback, context)",
        "await self._store.load_thread(thread_id, context)",
        THREAD + "a_thumb_is_stored_and_logged",
        "app/server.py",
    ),
    Defect(
        "a first message that fails costs its file",
        "self._files.undo_thread(thread_id, context)",
        "self._files.delete_thread(thread_id, context)",
        THREAD + "a_first_message_that_fails_can_be_sent_again_with_its_file",
        "app/server.py",
    ),
    Defect(
        "an answer does not wait for its store",
        "            if time.monotonic() > deadline:\n                raise\n        await",
        "            raise\n        await",
        ENDING + "an_answer_whose_write_fails_for_a_while_is_stored",
        "app/events.py",
    ),
    Defect(
        "traces say what was said",
        "trace_include_sensitive_data=settings.trace_content,",
        "trace_include_sensitive_data=True,",
        TRACES + "a_trace_names_its_thread_and_says_nothing_of_it_unless_asked",
        "app/run.py",
    ),
    Defect(
        "another server's answers are traced at OpenAI",
        "tracing_disabled=not traced(settings),",
        "tracing_disabled=False,",
        TRACES + "what_another_server_answers_is_not_traced",
        "app/run.py",
    ),
    Defect(
        "a chat-completions server does not count",
        "include_usage=settings.tokens_per_day > 0 or None",
        "include_usage=None",
        MODELS + "a_users_share_is_counted_as_the_models_server_counts",
        "app/run.py",
    ),
    Defect(
        "what has ended is told twice",
        "self.stored[event.item.id] = self.unsaved.pop(event.item.id)",
        "self.stored[event.item.id] = event.item",
        EVENTS + "what_has_ended_is_told_once",
        "app/events.py",
    ),
    Defect(
        "a picture that was under way is lost",
        "            item.image = update.image",
        "            pass",
        EVENTS + "what_is_left_open_is_kept_as_the_page_shows_it",
        "app/events.py",
    ),
    Defect(
        "a tool cannot close its thread",
        "if getattr(thread, name) == getattr(known, name):",
        "if True:",
        ASSISTANT + "what_others_change_of_a_thread_stays",
        "app/server.py",
    ),
    Defect(
        "a file's metadata reaches the page",
        'context={"exclude_metadata": True}',
        "context={}",
        "tests/test_files.py::test_an_image_is_shown_and_reaches_the_model",
        "app/server.py",
    ),
]
