"""Named exceptions of the library; each message is one line: what is wrong, where, and what is allowed."""


class SmiError(ValueError):
    """Base of everything that `smi` refuses."""


class UnsupportedModel(SmiError):
    """The model is not one that the adapter handles; the message names the part."""


class InvalidSetting(SmiError):
    """A setting is out of range or contradicts another (schedule, bit-width, recipe, ...)."""


class InvalidImages(SmiError):
    """A set of synthetic images does not fit the model, or its file is damaged."""


class NotCalibrated(SmiError):
    """A quantized model was asked for answers before it had its ranges."""


class InvalidFile(SmiError):
    """A file of a quantized model is damaged, of another version, cannot be written, or is there already."""


class MissingExtra(SmiError):
    """A package of an optional extra is not installed; the message says how to install it."""


class CheckpointError(SmiError):
    """A checkpoint is damaged or belongs to another run."""


class NonFiniteLoss(SmiError):
    """The loss became NaN or infinite; the message names the iteration and the settings."""


class Interrupted(Exception):
    """The run was told to stop; where it has a checkpoint its state is saved, and running it again continues there."""
