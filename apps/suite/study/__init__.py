"""Studies: many runs over grids of settings, and what they say together."""

from apps.suite.study.page import write_page
from apps.suite.study.run import run_study
from apps.suite.study.spec import StudyConfig, read_study

__all__ = ["StudyConfig", "read_study", "run_study", "write_page"]
