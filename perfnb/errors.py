"""The exceptions of perfnb: one class for each thing that a caller could handle."""

EXPORT_HINT = "export one with torch.profiler: prof.export_chrome_trace('trace.json.gz')"


class PerfnbError(Exception):
    """Base class of every error that perfnb raises on purpose."""


class TraceFormatError(PerfnbError):
    """A file is no profiler trace, or is damaged: says which file, where, and what to do."""


class NotATraceError(TraceFormatError):
    """A file is JSON, but something else than a profiler trace: `name` is the file's, `what` says what it holds."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(name, what)
        self.name, self.what = name, what

    def __str__(self) -> str:
        """What it is and what to do."""
        return f"{self.name} is no profiler trace: {self.what}; {EXPORT_HINT}"


class TruncatedTraceWarning(UserWarning):
    """A trace file ends early, as that of a crashed job: says where, and what was read up to there."""


class RankConflictError(PerfnbError):
    """Two files claim the same rank, or files of two jobs were read in one call."""


class NoStepsError(PerfnbError):
    """A run has no step boundaries, so no per-step question can be answered."""


class LedgerError(PerfnbError):
    """Parts of a step do not sum to the step: a defect of perfnb, never of the run."""


class TableError(PerfnbError):
    """A table lacks a column, or a column holds what cannot be converted to its type."""


class ConfigError(PerfnbError):
    """A config cannot be read, or lacks the knob that a change names."""


class StaleChange(PerfnbError):  # noqa: N818 - the name that architecture.md gives it
    """The config no longer holds the value that a change starts from."""


class ConflictingChanges(PerfnbError):  # noqa: N818 - the name that the what-if contract gives it
    """Two changes name the same knob."""


class MixedCurrency(PerfnbError):  # noqa: N818 - the name that the what-if contract gives it
    """Changes judged by step time and changes judged by the loss cannot be put in one order."""


class TooManyRows(PerfnbError):  # noqa: N818 - the name that the notebook design gives it
    """A table with more rows than a chart may hold was given to be drawn."""


class NoRendererError(PerfnbError):
    """The library that turns a chart into a picture is not installed."""


class RecordingError(PerfnbError):
    """A recording cannot start: another one runs, or its folder is taken; says what to do."""


class RunFolderError(PerfnbError):
    """A run folder cannot be read: it is none, is damaged, or was written by a newer perfnb."""


class LogFormatError(PerfnbError):
    """A training log cannot be read: says what it is, what was looked for and which formats are known."""


class SnapshotFormatError(PerfnbError):
    """A memory snapshot cannot be read: says what it is, what it lacks and how to make one."""


class UnsafePickle(SnapshotFormatError):  # noqa: N818 - the name that memory.md gives it
    """A pickle holds more than plain data, or is damaged: nothing of it was run."""


class OutOfMemoryTextError(PerfnbError):
    """A text is no out-of-memory message with the allocator's numbers: says what it is instead."""


class OutcomesError(PerfnbError):
    """The accuracy ledger cannot be read or written, or lacks the prediction that an outcome names: says what to do."""


class NoRoomError(PerfnbError):
    """A simulated allocator found no room: the request, what was held and the capacity, as attributes."""

    def __init__(self, wanted: int, segment: int, allocated: int, reserved: int, capacity: int) -> None:
        super().__init__(wanted, segment, allocated, reserved, capacity)
        self.wanted, self.segment, self.allocated, self.reserved, self.capacity = wanted, segment, allocated, reserved, capacity

    def __str__(self) -> str:
        """What was wanted and what was there."""
        return f"no room for {self.wanted:,} bytes: {self.allocated:,} allocated, {self.reserved:,} of {self.capacity:,} reserved"


class NoPlaceError(ConfigError):
    """A config has no place for a knob: `snippets` is the code that does it instead, to paste."""

    def __init__(self, message: str, snippets: tuple[str, ...] = ()) -> None:
        super().__init__(message, snippets)
        self.message, self.snippets = message, snippets

    def __str__(self) -> str:
        """What has no place where, and the code to paste."""
        return "\n\n".join((self.message, *self.snippets))


class NoLibraryError(ConfigError):
    """A kind of config file needs a library that is not installed: says which, and the extra that brings it."""

    def __init__(self, kind: str, library: str, extra: str) -> None:
        super().__init__(kind, library, extra)
        self.kind, self.library, self.extra = kind, library, extra

    def __str__(self) -> str:
        """What is missing and what to install."""
        return f"{self.kind} files need {self.library}, which is not installed: pip install 'perfnb[{self.extra}]'"


class ConfigFileError(ConfigError):
    """A config file cannot be written: says why; the file is as it was."""


class ProbeRefused(PerfnbError):  # noqa: N818 - the name that training.md gives it
    """A probe cannot run here, or would prove nothing: says what was found and what to do; the training is as it was."""


class RestoreFailed(PerfnbError):  # noqa: N818 - the name that training.md gives it
    """After a probe something is not as it was: says what."""
