"""The command line: `medsam`, or `python -m medsam_helpers`."""

import io
import json
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout

from medsam_helpers import __version__
from medsam_helpers.cli.audit import Audit
from medsam_helpers.cli.compare import Compare
from medsam_helpers.cli.evaluate import Evaluate
from medsam_helpers.cli.export import Export
from medsam_helpers.cli.finetune import Finetune
from medsam_helpers.cli.parser import Command, Parser
from medsam_helpers.cli.predict import Predict
from medsam_helpers.cli.reproduce import Reproduce
from medsam_helpers.cli.track import Track
from medsam_helpers.cli.weights import Weights
from medsam_helpers.errors import MedsamError

# Commands import what takes seconds to load only when they run, after a look at what is easily mistyped.
_ALL = (Weights, Audit, Finetune, Evaluate, Compare, Reproduce, Predict, Track, Export)
COMMANDS: dict[str, type[Command]] = {command.__name__.lower(): command for command in _ALL}


def build_parser() -> Parser:
    """The parser of all commands."""
    about = "Fine-tune, evaluate and prompt Segment Anything models. Not for clinical use."
    parser = Parser(prog="medsam", description=about)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        text = (command.__doc__ or "").strip().rstrip(".")
        sub = commands.add_parser(name, help=text, description=text, epilog=f"example: medsam {name} {command.EXAMPLE}")
        sub.add_argument("--json", action="store_true", help="the last line of the output is one JSON object")
        command.add_to(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status: 0, 1 (bad files were named), 2 (one line said why), 130 (interrupted)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a name shows its code in its place
            stream.reconfigure(errors="backslashreplace")
    # Torch's threads wait asleep, not spinning: 18 s become 20, and beside a busy neighbour 31 become 21.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = vars(build_parser().parse_args(argv))
    command, as_json = COMMANDS[given.pop("command")], given.pop("json")
    line = shlex.join(["medsam", *(argv if argv is not None else sys.argv[1:])])
    # A scheduler that ends the job asks with SIGTERM: what was computed is kept as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as quiet, warnings.catch_warnings():
        if os.environ.get("RANK", "0") != "0":  # of several processes the first one speaks
            quiet.enter_context(redirect_stdout(io.StringIO()))
        warnings.showwarning = lambda message, *_, **__: _tell(f"warning: {message}")
        try:
            result = command(**given).run(line)
        except MedsamError as error:
            print(f"medsam: {error}", file=sys.stderr)
            return 2
        except OSError as error:  # a full disk, a folder without permission: the system's own words name the file
            _tell(error)
            return 2
        except KeyboardInterrupt:
            _tell("interrupted" + "; the same command goes on from here" * command.RESUMES)
            return 130
        if as_json:
            print(json.dumps(result))
    return result.get("exit_status", 0)


def _tell(message: object) -> None:
    """One line on the error stream, however many the message has."""
    print("medsam:", *str(message).split(), file=sys.stderr)
