"""Settings for a folder of images: looked through, chosen by a table of advice, compared with the control."""

from gcpzoo.experiments.folder.choose import Choice, choose
from gcpzoo.experiments.folder.source import Source, find_source
from gcpzoo.experiments.folder.survey import FolderSurvey, survey_folder

__all__ = ["Choice", "FolderSurvey", "Source", "choose", "find_source", "survey_folder"]
