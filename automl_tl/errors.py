"""Every error that automl-tl raises on purpose.

```
AutoMLError                 anything below; the command line prints it as one sentence, exit code 2
├── UsageError              an argument, a setting or a configuration file is wrong
├── DataError               the data set as a whole cannot be used
│   └── ImageError          one image cannot be decoded: named, left out, never fatal
├── WeightsError            a weights file is missing, unreadable or of another network
├── PluginError             a plugin cannot be loaded or breaks its contract
├── StudyError              a study directory or its storage cannot be used
├── EngineError             an engine cannot start workers where they were to run
├── CacheError              a stored array cannot be written or read
├── ExportError             an exported file does not agree with the trained model
├── TrialError              a trial failed for a reason that the next trial may not share
│   └── BackendDied         the framework's process died under it; it is tried again once
└── StopTraining            not a failure: leaves the training loop from inside ``Progress``
    ├── PruneTraining       the pruner gave up on the trial; its model is not kept
    └── FinishTraining      a deadline or a request to stop; the last reported epoch counts
```

Messages say what was expected, what came and what to do next, in one sentence.
"""

__all__ = [
    "AutoMLError",
    "BackendDied",
    "CacheError",
    "DataError",
    "EngineError",
    "ExportError",
    "FinishTraining",
    "ImageError",
    "PluginError",
    "PruneTraining",
    "StopTraining",
    "StudyError",
    "TrialError",
    "UsageError",
    "WeightsError",
]


class AutoMLError(Exception):
    """Base of all errors that automl-tl raises on purpose."""


class UsageError(AutoMLError):
    """An argument, a setting or a configuration file is wrong."""


class DataError(AutoMLError):
    """The data set as a whole cannot be used."""


class ImageError(DataError):
    """One image cannot be decoded."""


class WeightsError(AutoMLError):
    """A weights file is missing, unreadable or belongs to another network."""


class PluginError(AutoMLError):
    """A plugin cannot be loaded or breaks its contract."""


class StudyError(AutoMLError):
    """A study directory or its storage cannot be used."""


class EngineError(AutoMLError):
    """An engine cannot start workers where they were to run."""


class CacheError(AutoMLError):
    """A stored array cannot be written or read."""


class ExportError(AutoMLError):
    """An exported file does not agree with the trained model, or cannot be opened."""


class TrialError(AutoMLError):
    """A trial failed."""


class BackendDied(TrialError):
    """The framework's process died under a trial."""


class StopTraining(AutoMLError):
    """Raised by ``Progress`` to leave a training loop; a backend lets it pass."""


class PruneTraining(StopTraining):
    """The pruner gave up on the trial."""


class FinishTraining(StopTraining):
    """A deadline came or somebody asked to stop: the last reported epoch is the result."""
