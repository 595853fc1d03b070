"""The error for a store that cannot be reached or written names the reason."""

from pipeline.errors import StudyError
from pipeline.tracking.uris import refusal


def test_errors_that_lead_back_to_one_another_are_each_read_once() -> None:
    full, carrier = StudyError("the journal must be writable"), RuntimeError("carried")
    full.__context__, carrier.__cause__ = carrier, full
    assert "sqlite:///a.db: the journal must be writable." in str(refusal("sqlite:///a.db", full))


def test_the_system_s_own_words_say_most() -> None:
    error = RuntimeError("(sqlite3.OperationalError) database or disk is full")
    error.__cause__ = OSError(28, "No space left on device")
    assert "sqlite:///a.db: No space left on device." in str(refusal("sqlite:///a.db", error))
