"""Exceptions, divided by who must act.

A wrong request (`InvalidCrystalError`, `SettingsError`) is the caller's to mend. A broken set-up
(`OracleSetupError`) would fail every job, so everything stops. The failure of one calculation is not
an exception at all: it is a `Calculation` whose status says so.
"""


class OpenGnomeError(Exception):
    """Base of every error raised on purpose by this package."""

    exit_code = 2
    """With which the command line ends."""


class InvalidCrystalError(OpenGnomeError, ValueError):
    """A crystal, composition or crystal file breaks a rule; the message has the value and the rule."""


class SettingsError(OpenGnomeError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class HullError(OpenGnomeError, ValueError):
    """A question that a convex hull cannot answer."""


class MissingReferenceError(HullError):
    """An element has no reference entry, so nothing that contains it has a formation energy."""


class OracleSetupError(OpenGnomeError, RuntimeError):
    """The oracle itself cannot work (not installed, wrong import path): every calculation would fail."""


class ElementsLackDataError(OracleSetupError):
    """Some elements have no potential, data set, cutoff or training: crystals of the others can be computed."""


class CheckpointError(OpenGnomeError, ValueError):
    """A model checkpoint is missing, damaged, or was written by an incompatible version."""


class CampaignError(OpenGnomeError, RuntimeError):
    """A campaign directory is not usable as asked."""


class WorkFailedError(OpenGnomeError, RuntimeError):
    """Work that everything after it needs has failed: a worker was lost, or the program itself is at fault."""

    exit_code = 1
