"""Settings for a folder of images: looked through, chosen by a table of advice, compared with the control."""

from gcpzoo.experiments.folder.choose import Choice, choose, image_size
from gcpzoo.experiments.folder.frozen import FrozenComparison, compare_frozen
from gcpzoo.experiments.folder.source import Source, find_source
from gcpzoo.experiments.folder.survey import FolderSurvey, survey_folder

__all__ = [
    "Choice",
    "FolderSurvey",
    "FrozenComparison",
    "Source",
    "choose",
    "compare_frozen",
    "find_source",
    "image_size",
    "survey_folder",
]
