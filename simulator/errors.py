"""What can go wrong, with the exit code each ends in; messages are for the person who reads them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Process exit codes; where k6 has a code for the same thing it is k6's."""

    OK = 0
    ERROR = 1
    USAGE = 2
    THRESHOLDS = 99
    INVALID_SCENARIO = 104
    INTERRUPTED = 105
    INVALID_RUN = 120
    REGRESSION = 121
    ANOMALIES = 122


class SimError(Exception):
    """An expected failure: its text is one clear line, and `exit_code` is what the process ends with."""

    exit_code = Exit.ERROR


class UsageError(SimError):
    """The command line asks for something that cannot be: a bad flag, an output folder that exists."""

    exit_code = Exit.USAGE


class ScenarioError(SimError):
    """The scenario (or a file it names) is wrong; the text says file, line, path, and what would be right."""

    exit_code = Exit.INVALID_SCENARIO


class BackendError(SimError):
    """The backend could not start, or stopped when it should not have."""


class InvalidRunError(SimError):
    """A run's figures are not to be believed, so nothing can be concluded from them."""

    exit_code = Exit.INVALID_RUN
