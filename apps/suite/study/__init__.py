"""Studies: many runs over grids of settings, and what they say together."""

from apps.suite.study.page import write_page
from apps.suite.study.run import run_study
from apps.suite.study.spec import StudyConfig, read_study
from apps.suite.study.view import StudyView

__all__ = ["StudyConfig", "StudyView", "read_study", "run_study", "write_page"]
