"""The command line."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from layerfreq._version import __version__
from layerfreq.cli.advise import advise
from layerfreq.cli.analyze import analyze
from layerfreq.cli.bench import bench
from layerfreq.cli.doctor import doctor
from layerfreq.cli.relearn import relearn
from layerfreq.cli.report import report
from layerfreq.cli.reproduce import demo, reproduce
from layerfreq.cli.spectrum import errors, spectrum
from layerfreq.cli.terminal import Stopped
from layerfreq.cli.verdict import verdict
from layerfreq.errors import Code, InputError, first_line

INTERRUPTED = 130  # 128 and the number of the signal, as shells have it
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _say_version(wanted: bool) -> bool:
    if wanted:
        print(f"layerfreq {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def layerfreq(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Measure which frequencies each layer of a network still has to learn."""


for command in (demo, analyze, doctor, report, verdict, advise, relearn, spectrum, errors, reproduce, bench):
    app.command()(command)


def main() -> None:
    """Run the command line: 0 done, 2 wrong usage or input, 1 failed, 130 stopped; an error is one line."""
    os.environ.setdefault("MPLBACKEND", "agg")
    before, warnings.formatwarning = warnings.formatwarning, _as_line
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without δ gets ?, not an error
    try:
        status = _run()
        sys.stdout.flush()
        if status == INTERRUPTED:  # what Typer makes of Ctrl-C, without a word
            raise Stopped("run it again")
        sys.exit(status)
    except Stopped as stopped:
        _fail(f"stopped; {stopped}", INTERRUPTED)
    except InputError as error:
        _fail(_for_the_shell(error), 2)
    except BrokenPipeError:
        _leave_quietly()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space and run it again (reproduce: with --resume)" if full else "choose another place"
        _fail(f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}; {remedy}", 2)
    except Exception as error:
        if isinstance(getattr(error, "exit_code", None), int) and hasattr(error, "format_message"):
            _wrong_usage(error)
        if type(error).__name__ == "Abort":  # what older versions of Typer make of Ctrl-C
            _fail("stopped; run it again", INTERRUPTED)
        if os.environ.get("LAYERFREQ_DEBUG"):
            raise
        _fail(f"{first_line(error, kind=True)} (set LAYERFREQ_DEBUG=1 for the traceback)", 1)
    finally:
        warnings.formatwarning = before


def _as_line(message: Warning | str, *_: Any) -> str:
    """Say a warning as errors are said: whoever typed a command has no use for the line of code that warned."""
    return f"layerfreq: warning: {' '.join(str(message).split())}\n"


def _run() -> int:
    """Run a command; only it says how the program ends, and not the code of a model or of data."""
    try:
        return app(standalone_mode=False) or 0
    except _Over:
        raise
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Rich and Typer turn one into the end
            raise error.__context__ from None
        if "_LAYERFREQ_COMPLETE" in os.environ or any(word.endswith("-completion") for word in sys.argv[1:2]):
            raise  # Typer answers the shell, and ends
        raise Code.FAILED(
            f"model: its code, or the data's, ended the program (sys.exit({error.code!r})); fix it"
        ) from None


class _Over(SystemExit):
    pass


def _wrong_usage(error: Any) -> NoReturn:
    """Say in one line what Typer would in a box; without a command it has shown the help already."""
    said = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    if "NoArgs" in type(error).__name__:
        sys.exit(2)
    context = getattr(error, "ctx", None)
    command = "" if context is None else context.command_path.removeprefix(context.find_root().command_path)
    _fail(f"{said}; see layerfreq{command} --help", 2)


def _for_the_shell(error: InputError) -> str:
    """Return the message of an error, with options of the command line instead of Python's arguments."""
    said, _, remedy = str(error).partition("; ")
    if error.code is not Code.EXISTS or "overwrite=True" not in remedy:
        return str(error)
    return f"{said}; pass another --out" + (", or --resume" if "reproduce" in sys.argv[1:2] else "")


def _fail(message: str, status: int) -> NoReturn:
    print(f"layerfreq: {' '.join(message.split())}", file=sys.stderr)
    warnings.simplefilter("ignore")  # what else fails on the way out has the same cause
    raise _Over(status)


def _leave_quietly() -> NoReturn:
    """End as programs do whose reader, such as `head`, has left."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # of what is still to be flushed
    raise _Over(1)
