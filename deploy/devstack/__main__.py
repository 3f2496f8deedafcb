"""`python -m devstack up|down|status|logins|run|republish`: the embedded stack from a terminal, without the `optaic` command."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable

import devstack
from devstack import State
from devstack.endpoints import NoStackError
from devstack.ports import PortTakenError

_COMPARISON_SECONDS = 120.0
_NOT_READY = 3  # the exit status of `systemctl status` for a service that does not run


def main() -> int:
    """Execute the command of the command line."""
    parser = argparse.ArgumentParser(prog="python -m devstack", description="The embedded stack.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start it in the background; prints every address")
    commands.add_parser("down", help="stop it; its data stays")
    commands.add_parser("run", help="run it in the foreground until Ctrl-C")
    commands.add_parser("supervise")  # what `up` starts
    commands.add_parser(
        "republish", help="compare all services now; what one of them lacks is published again"
    )
    show = commands.add_parser("status", help="what runs and what answers")
    show.add_argument("--json", action="store_true")
    commands.add_parser("logins", help="users and passwords of Prefect's and MLflow's pages")
    arguments = parser.parse_args()
    settings = devstack.Settings()
    match arguments.command:
        case "up":
            return _up(settings)
        case "down":
            sys.stdout.write("stopped\n" if devstack.down(settings) else "nothing was running\n")
            return 0
        case "status":
            return _status(settings, as_json=arguments.json)
        case "logins":
            return _report_errors(lambda: _show_logins(settings))
        case "republish":
            return _republish(settings)
        case _:
            main_ = _show_and_wait if arguments.command == "run" else None
            return _report_errors(lambda: devstack.run(main_, settings))


def _report_errors(action: Callable[[], int]) -> int:
    try:
        return action()
    except (devstack.StartError, devstack.StackInUseError, NoStackError, PortTakenError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _up(settings: devstack.Settings) -> int:
    def start() -> int:
        endpoints = devstack.up(settings)
        sys.stdout.write(devstack.describe(endpoints, State(settings.root)) + "\n")
        return 0

    try:
        return _report_errors(start)
    except KeyboardInterrupt:
        return 130


def _show_logins(settings: devstack.Settings) -> int:
    endpoints = devstack.Endpoints.require(State(settings.root))
    sys.stdout.write(devstack.describe_logins(endpoints) + "\n")
    return 0


def _republish(settings: devstack.Settings) -> int:
    from devstack.broker import find_nats  # noqa: PLC0415 - only this command needs the services
    from servicekit.comparison import compare_now  # noqa: PLC0415 - only this command needs the services

    try:
        url, tls = find_nats(settings, "instance")
        asked = asyncio.run(compare_now(url, _COMPARISON_SECONDS, tls))
    except (NoStackError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("all services know the same\n" if not asked else f"published again: {asked} parts\n")
    return 0


async def _show_and_wait(stack: devstack.Stack) -> int:
    sys.stdout.write(devstack.describe(stack.endpoints, stack.state) + "\nCtrl-C stops it.\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
    return 0


def _status(settings: devstack.Settings, *, as_json: bool) -> int:
    report = devstack.status(settings)
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    elif report["phase"] == "stopped":
        sys.stdout.write(f"the stack is not running; `make up` starts it. Its data is in {report['state']}\n")
    else:
        sys.stdout.write(f"{report['phase']}  {report['state']}\n")
        for name, process in report["processes"].items():
            answer = "answers" if process["answers"] else "silent"
            sys.stdout.write(f"  {name:<18} {process['pid'] or '-':>8}  {answer:<8} {process['log']}\n")
            if process["intervention"]:
                sys.stdout.write(f"{'':<21}{process['intervention']}\n")
        sys.stdout.write("`make logins` prints the logins of Prefect's and MLflow's pages\n")
    return 0 if report["phase"] == "ready" else _NOT_READY


if __name__ == "__main__":
    sys.exit(main())
