"""The exception tree of the whole application, with the exit code of each branch.

    CondenseryError                    1  a rule of ours was broken; the message is one line for the user
    ├── InvalidSettings               10  a study file with an unknown key or a wrong value
    │   └── StudyFileVersion          11  a study file written for another version
    ├── ImpossibleSpace               12  a search space that holds no network (or none of the kind asked for)
    ├── InvalidConfig (ValueError)    13  one architecture that breaks a rule of CondenseNet
    ├── UnknownDataset                20  no data set has this name
    ├── DataNotFound                  21  the data set's files are not there
    ├── UnreadableImage               22  a file that should be an image is not
    ├── TableUnreadable               23  a table of recorded trainings is missing, damaged or something else
    ├── ArchiveUnreadable             24  a study's archive is damaged, hostile, or of another version
    ├── NotOurDatabase                30  the database holds something else
    ├── DatabaseVersion               31  the database is of another version
    ├── DatabaseLocked                32  another process holds the database
    ├── DatabaseUnavailable           33  the database can't be reached or opened
    ├── StudyExists                   40  a study of this name is there, and --resume was not given
    ├── StudyNotFound                 41  no such study
    ├── FrozenSettings                42  --resume with settings that must not change
    ├── TrialNotFound                 43  no such trial in the study
    ├── TrialNotReady                 44  the trial has no trained network (yet)
    │   └── NothingTrained            49  its study was replayed, so it will never have one
    ├── StudyBusy                     45  another controller is running this study
    ├── DeviceNotFound                46  no device of this name, or nothing known of it yet
    ├── DeviceExists                  47  a device of this name is there
    ├── StudyDamaged                  48  something is wrong with a study that `doctor` did not repair
    ├── NothingFeasible               50  no trained network fits the budget
    ├── BudgetUnreachable             51  a budget below anything the space can reach
    ├── SearchFailed                  52  the search ended without the trainings asked for
    ├── DiskFull                      60  no space left on the device
    ├── ReadOnlyFolder                61  a folder that can't be written
    │   └── FileInTheWay              62  a file is there that must not be replaced
    ├── NotFullyCondensed             70  deploying a network that still has columns to condense
    ├── UncountableOperator           71  fvcore met an operator whose cost is not known
    ├── ExportMismatch                72  an exported network disagrees with the trained one
    ├── CheckpointCorrupt             73  a checkpoint whose files don't match their hash
    ├── MeasurementFailed             74  a latency could not be measured
    ├── TrainingFailed                75  a training ended without a usable network (its reason says why)
    │   └── OutOfMemory               78  it needed more memory than its worker has
    ├── EmulatorMissing               76  the ARM device in software is not built, or its tools are missing
    ├── EngineUnavailable             77  Ray can't be started, reached or started again
    ├── PlotUnavailable               79  a plot can't be drawn as an image here
    ├── ChartUnavailable              81  a chart can't be computed from a study as it is now
    ├── QuantizationFailed            80  a network can't be put into 8 bits
    ├── PrecisionMissing              82  a runtime has no model files in the precision asked for
    ├── BundleDamaged                 90  a bundle's folder is not as it was written
    │   └── BundleVersion             91  a bundle of a version that can't be used here
    ├── BundleDisagrees               92  a bundle's model file doesn't say of its samples what it said
    ├── BundleOverBudget              93  a bundle's network is over its budget when it is measured again
    └── BundleUndecided               94  a bundle's network could not be held to its budget: the machine was busy

Exit codes 0 (done), 2 (wrong use of the command line) and 130 (interrupted, resumable) complete the table.
"""


class CondenseryError(Exception):
    """A rule of the application was broken; `str()` is one clear line, `exit_code` what the command returns."""

    exit_code = 1


class InvalidSettings(CondenseryError):
    """A study file or setting is wrong: an unknown key, a wrong type, a value outside its range."""

    exit_code = 10


class StudyFileVersion(InvalidSettings):
    """The study file's `format` is not the one this version reads."""

    exit_code = 11


class ImpossibleSpace(CondenseryError):
    """The search space holds no valid architecture; the message names the rule."""

    exit_code = 12


class InvalidConfig(CondenseryError, ValueError):
    """A CondenseNetConfig breaks a rule; the message gives the rule and the value."""

    exit_code = 13


class UnknownDataset(CondenseryError):
    """No data set has this name."""

    exit_code = 20


class DataNotFound(CondenseryError):
    """The data set's files are missing; the message says how to get them."""

    exit_code = 21


class UnreadableImage(CondenseryError):
    """A file of an image folder could not be decoded; the message names it."""

    exit_code = 22


class TableUnreadable(CondenseryError):
    """A table of recorded trainings is missing, damaged or something else; the message says which."""

    exit_code = 23


class ArchiveUnreadable(CondenseryError):
    """A study's archive is missing, damaged, hostile, or of another version; the message says which."""

    exit_code = 24


class NotOurDatabase(CondenseryError):
    """The database belongs to another application (or is no database)."""

    exit_code = 30


class DatabaseVersion(CondenseryError):
    """The database's tables are of another version; the message says whether `db upgrade` helps."""

    exit_code = 31


class DatabaseLocked(CondenseryError):
    """Another process held the database for longer than the time-out."""

    exit_code = 32


class DatabaseUnavailable(CondenseryError):
    """The database can't be opened: it isn't there, isn't reachable or may not be written."""

    exit_code = 33


class StudyExists(CondenseryError):
    """A study of this name exists and `--resume` was not given."""

    exit_code = 40


class StudyNotFound(CondenseryError):
    """No study of this name; the message suggests the nearest."""

    exit_code = 41


class FrozenSettings(CondenseryError):
    """A resumed study's file differs in settings that define what its results mean."""

    exit_code = 42


class TrialNotFound(CondenseryError):
    """The study has no trial of this number."""

    exit_code = 43


class TrialNotReady(CondenseryError):
    """The trial has no trained network to hand out."""

    exit_code = 44


class NothingTrained(TrialNotReady):
    """The study was replayed from a table, so it has no trained network; the message says how to train one."""

    exit_code = 49


class StudyBusy(CondenseryError):
    """Another process is running this study."""

    exit_code = 45


class DeviceNotFound(CondenseryError):
    """No device or queue of this name is registered, or it has no measurements yet; the message says what to do."""

    exit_code = 46


class DeviceExists(CondenseryError):
    """A device of this name is registered."""

    exit_code = 47


class StudyDamaged(CondenseryError):
    """Something is wrong with a study and was not repaired: only the user can, or `--dry-run` forbade it."""

    exit_code = 48


class NothingFeasible(CondenseryError):
    """No trained network fits the budget; the message gives the smallest that was reached."""

    exit_code = 50


class BudgetUnreachable(CondenseryError):
    """The budget is below anything the search space can reach; the message gives the smallest cost seen."""

    exit_code = 51


class SearchFailed(CondenseryError):
    """The search ended before the trainings asked for; the message says why."""

    exit_code = 52


class DiskFull(CondenseryError):
    """No space is left on the device."""

    exit_code = 60


class ReadOnlyFolder(CondenseryError):
    """A folder that must be written can't be."""

    exit_code = 61


class FileInTheWay(ReadOnlyFolder):
    """A file is there already, and a command that would replace it was not told to."""

    exit_code = 62


class NotFullyCondensed(CondenseryError):
    """A layer still has condensing stages to go, so it has no deployed form."""

    exit_code = 70


class UncountableOperator(CondenseryError):
    """fvcore met an operator it can't count."""

    exit_code = 71


class ExportMismatch(CondenseryError):
    """The exported network's outputs differ from the trained network's."""

    exit_code = 72


class CheckpointCorrupt(CondenseryError):
    """A checkpoint's files don't match the hash that was recorded with them."""

    exit_code = 73


class MeasurementFailed(CondenseryError):
    """The runtime refused the network or the measuring process died."""

    exit_code = 74


class TrainingFailed(CondenseryError):
    """A training ended without a usable network; the message is the reason recorded with the trial."""

    exit_code = 75


class OutOfMemory(TrainingFailed):
    """A training needed more memory than its worker has."""

    exit_code = 78


class EmulatorMissing(CondenseryError):
    """The ARM device in software is not built here, or its tools are missing; the message says what to do."""

    exit_code = 76


class EngineUnavailable(CondenseryError):
    """Who should run the trials can't be started or reached; the message says why."""

    exit_code = 77


class PlotUnavailable(CondenseryError):
    """An image of a plot needs kaleido and Chromium, and one of them is missing or failed; the message says which."""

    exit_code = 79


class ChartUnavailable(CondenseryError):
    """A chart can't be computed from a study as it is now; the message says why, and what to do."""

    exit_code = 81


class QuantizationFailed(CondenseryError):
    """A network can't be put into 8 bits: calibration images of one class, or a value that overflows."""

    exit_code = 80


class PrecisionMissing(CondenseryError):
    """A runtime has no model files in the precision that is asked for."""

    exit_code = 82


class BundleDamaged(CondenseryError):
    """A bundle's folder lacks a file, or one was changed or added; the message names it."""

    exit_code = 90


class BundleVersion(BundleDamaged):
    """The bundle is of a version that can't be used here; the message says what to do."""

    exit_code = 91


class BundleDisagrees(CondenseryError):
    """A model file of a bundle gives other outputs for the sample images than when the bundle was written."""

    exit_code = 92


class BundleOverBudget(CondenseryError):
    """A bundle's network is over its budget; the message gives both."""

    exit_code = 93


class BundleUndecided(CondenseryError):
    """No measurement of a bundle's network was steady enough to hold it to its budget."""

    exit_code = 94
