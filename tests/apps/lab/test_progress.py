"""Progress shows on a terminal and stays out of logs."""

import sys

import pytest

from apps.lab import progress


@pytest.fixture(autouse=True)
def _usual_verbosity():
    yield
    progress.set_verbosity(1)


def test_track_passes_the_items_and_is_silent_in_a_log(capsys):
    assert list(progress.track(iter("abc"), "letters", total=3)) == list("abc")
    assert capsys.readouterr() == ("", "")


def test_track_draws_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    items = progress.track([1, 2], "train", note=lambda: "loss 0.5")
    assert list(items) == [1, 2]
    shown = capsys.readouterr().err
    assert "train" in shown
    progress.set_verbosity(0)
    assert list(progress.track([1, 2], "train")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_say_follows_the_verbosity(capsys):
    progress.say("usual")
    progress.say("detail", verbosity=2)
    progress.set_verbosity(2)
    progress.say("more", verbosity=2)
    progress.set_verbosity(0)
    progress.say("nothing")
    assert capsys.readouterr() == ("", "usual\nmore\n")


def test_columns_align_and_cut_nothing():
    long = "x" * 200
    assert progress.columns(("a", "bb"), [("ccc", "d"), (long, "")]).split("\n") == [
        "a" + " " * 201 + "bb",
        "ccc" + " " * 199 + "d",
        long,
    ]
