"""How an error meets the user of a command."""

import typer
from typer.testing import CliRunner

from apps.lab import progress
from apps.lab.options import OutOption, QuietOption, SetOption, VerboseOption, handle_errors
from core.errors import DataError

app = typer.Typer()


@app.command()
@handle_errors
def train(
    out: OutOption,
    set_: SetOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
):
    if str(out) == "user":
        raise DataError("the table is empty; give another")
    if str(out) == "bug":
        raise ZeroDivisionError
    if str(out) == "interrupt":
        raise KeyboardInterrupt
    print(out, set_, progress._verbosity)


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_options_reach_the_command_and_set_the_verbosity():
    assert run("--out", "x", "--set", "a=1", "--set", "b=2").stdout == "x ['a=1', 'b=2'] 1\n"
    assert run("--out", "x", "-q").stdout == "x None 0\n"
    assert run("--out", "x", "-v").stdout == "x None 2\n"
    progress.set_verbosity(1)


def test_a_users_error_is_one_sentence_and_exit_code_2():
    done = run("--out", "user")
    assert done.exit_code == 2
    assert done.stderr == "error: the table is empty; give another\n"
    assert done.stdout == ""


def test_verbose_shows_where_the_error_came_from():
    assert isinstance(run("--out", "user", "-v").exception, DataError)
    progress.set_verbosity(1)


def test_a_mistake_of_ours_is_not_hidden_and_an_interrupt_is_quiet():
    assert isinstance(run("--out", "bug").exception, ZeroDivisionError)
    done = run("--out", "interrupt")
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")
