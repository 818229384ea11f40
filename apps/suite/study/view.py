"""A study in a notebook: what its report says first."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from apps.lab.report.card import table_html
from apps.suite.study.headlines import headlines
from apps.suite.study.sections import accuracy_name, effect_rows, machine_heads
from apps.suite.study.sheet import read_sheets
from apps.suite.study.state import read_state


class StudyView:
    """The study in a folder, finished or not; a notebook shows it as accuracy, cost and effects.

    Parameters
    ----------
    folder : path
        As `run_study` left it.

    Raises
    ------
    DataError
        If it holds no study.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.state = read_state(self.folder)
        self.sheets, self.unread = read_sheets(self.folder, self.state)

    def __repr__(self) -> str:
        done, n = self.state.count("done"), len(self.state.runs)
        return f"StudyView({str(self.folder)!r}): {done} of {n} runs are finished"

    def _repr_html_(self) -> str:
        parts = [Markup("<h3>{}</h3><p>{}</p>").format(self.state.study.title, repr(self))]
        for line in headlines(self.sheets):
            parts.append(Markup("<p><b>{}.</b> {}</p>").format(line.application, line.accuracy))
            parts.append(table_html("machine", line.heads, line.rows))
        for sheet in self.sheets:
            heads = ["pairs", f"change of {accuracy_name(sheet)}", "range", *machine_heads(sheet)]
            if rows := effect_rows(sheet):
                parts.append(table_html(f"{sheet.name}: lever", heads, rows))
        return Markup("").join(parts)
