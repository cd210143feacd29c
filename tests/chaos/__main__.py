"""`python -m tests.chaos`: faults against a real Kafka and real workers, under load; a ledger verifies the results."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NoReturn

from inferd.daemon.supervision.stop_signals import terminable
from tests.chaos.battery import GUARANTEES, Options, broker, caught, kept_if_wanted, run_battery, run_bugs, steps_of
from tests.chaos.faults import all_faults
from tests.chaos.outcome import Outcome
from tests.chaos.report import as_text, bugs_as_text
from tests.chaos.seeded_bugs import BUGS

EXIT_HELD, EXIT_VIOLATED = 0, 1
SHOWN_STEPS = 40


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command-line options; their defaults come from the variables CHAOS_*."""
    made = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    add = made.add_argument
    add("--minutes", type=float, default=float(environ.get("CHAOS_MINUTES") or 10), help="for all guarantees together")
    add("--seed", type=int, default=environ.get("CHAOS_SEED") or None, help="the same seed gives the same schedule")
    add("--guarantee", choices=(*GUARANTEES, "both"), default=environ.get("CHAOS_GUARANTEE") or "both")
    add("--faults", default=environ.get("CHAOS_FAULTS") or "", help="only these, once each, parted by commas")
    add("--workers", type=int, default=3)
    add("--nodes", type=int, default=1, help="brokers; with 3, faults of nodes instead of those of the only broker")
    add("--rate", type=int, default=1_000, help="requests per second")
    add("--setting", action="append", default=[], metavar="NAME=VALUE", help="of the workers, as in INFERD_NAME=VALUE")
    add("--cache", action="store_true", help="with the prediction cache on for the model that most requests name")
    add("--json", type=Path, help="a file for the report")
    add("--list", action="store_true", help="show the faults, the seeded bugs and the schedule's beginning")
    add("--bugs", nargs="?", const="all", help="run the seeded bugs instead: all, or these, parted by commas")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the requested battery; returns 0 if every check passed, or every seeded bug was detected."""
    chosen = parser(os.environ).parse_args(arguments)
    seed = random.SystemRandom().getrandbits(31) if chosen.seed is None else int(chosen.seed)
    options = Options(
        seed,
        chosen.minutes * 60,
        GUARANTEES if chosen.guarantee == "both" else (chosen.guarantee,),
        _names(chosen.faults, all_faults()),
        chosen.workers,
        chosen.rate,
        dict(setting.split("=", 1) for setting in chosen.setting),
        chosen.nodes,
        chosen.cache,
    )
    print(f"seed {seed}", flush=True)
    if chosen.list:
        _list(options)
        return EXIT_HELD
    with terminable(), kept_if_wanted() as directory, broker(directory, chosen.nodes) as kafka:
        if chosen.bugs:
            names = _names("" if chosen.bugs == "all" else chosen.bugs, BUGS)
            outcomes = run_bugs(kafka, names, seed, directory, _say)
            print(bugs_as_text(outcomes))
            failed = not all(map(caught, outcomes))
        else:
            outcomes = run_battery(kafka, options, directory, _say)
            print("".join(map(as_text, outcomes)))
            failed = any(outcome.violations for outcome in outcomes)
        _write(chosen.json, outcomes)
        if failed:
            _leave_logs(directory, EXIT_VIOLATED)
    return EXIT_HELD


def _leave_logs(directory: Path, code: int) -> NoReturn:
    print(f"the logs are kept in {directory}")
    raise SystemExit(code)


def _say(line: str) -> None:
    print(line, flush=True)


def _names(text: str, known: Mapping[str, object]) -> Sequence[str]:
    names = tuple(name for name in text.split(",") if name)
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _list(options: Options) -> None:
    for fault in all_faults().values():
        print(f"{fault.name:34} {fault.row:24} {fault.what}")
    print()
    for bug in BUGS.values():
        print(f"{bug.name:34} {bug.guarantee:24} {bug.what}")
    print()
    for step in islice(steps_of(options, lengthy=True), SHOWN_STEPS):
        print(step)


def _write(path: Path | None, outcomes: Sequence[Outcome]) -> None:
    if path is not None:
        path.write_text(json.dumps([outcome.as_json() for outcome in outcomes], indent=1) + "\n", encoding="utf-8")


def _end(code: int) -> NoReturn:
    """Exits without unloading librdkafka, whose threads may still run and crash the process during unloading."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    try:
        _end(main())
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        _end(ended.code)
