"""Layer 6: ``job``: the backups that the agent runs on a schedule."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Final

import click

from cloudconnect.agent.jobs import (
    Job,
    load_job,
    load_jobs,
    remove_job,
    save_job,
)
from cloudconnect.agent.running import JobRun, Outcome
from cloudconnect.agent.schedule import Schedule
from cloudconnect.agent.scheduler import keep_outcome
from cloudconnect.agent.state import States, is_held, lock_path, states_path, take_lock
from cloudconnect.cli.completion import FILE
from cloudconnect.cli.console import Console, local_time, printable
from cloudconnect.cli.running import Interrupt, run
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.cli.values import parse_duration
from cloudconnect.config.profile import DEFAULT_PROFILE, Profile, load
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.errors import Busy, UsageError

#: Seconds after which a job that came due, and did not begin, is told: the agent looks each minute.
LATE_SECONDS: Final = 120.0

#: Variables that name a secret, or where it is.
_LOGIN: Final = (
    "CLOUDCONNECT_PASSWORD_FILE",
    "CLOUDCONNECT_PASSWORD_COMMAND",
    "CLOUDCONNECT_CERTIFICATE",
)
_PHRASE: Final = (
    "CLOUDCONNECT_PASSPHRASE_FILE",
    "CLOUDCONNECT_PASSPHRASE_COMMAND",
    "CLOUDCONNECT_KEY_FILE",
)

_json = click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output.")


@click.group(cls=CommandGroup)
def job() -> None:
    """Backups on a schedule, which the agent runs (twist cloudconnect-agent)."""


class _WithTail(click.Command):
    """A command whose words go on behind ``--`` as they are, that mark with them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave what stands behind ``--`` out of the parsing."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta["tail"] = tuple(args[end:])
        return super().parse_args(ctx, args[:end])


@job.command(cls=_WithTail, context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("words", nargs=-1, type=FILE, metavar="PATH... [OPTIONS]")
@click.option("--schedule", required=True, metavar="CRON", help="'30 2 * * *', or @daily ...")
@click.option("--pre", default="", metavar="CMD", help="Run before; without success no backup.")
@click.option("--post", default="", metavar="CMD", help="Run afterwards, also where it failed.")
@click.option("--on-failure", default="", metavar="CMD", help="Run where something failed.")
@click.option("--jitter", default="5m", show_default=True, help="Delayed by at most so much.")
@click.option("--profile", "profile", metavar="NAME", help="Which saved profile to use.")
@_json
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    words: tuple[str, ...],
    schedule: str,
    pre: str,
    post: str,
    on_failure: str,
    jitter: str,
    profile: str | None,
    as_json: bool,
) -> None:
    """Have the agent back up PATHs by a schedule, with the options of cloudconnect backup.

    A job of the same name is replaced. Its restore points have NAME as their job. Commands are a
    program and its arguments, without a shell; they find CLOUDCONNECT_JOB in their environment, and
    behind the backup CLOUDCONNECT_STATUS, CLOUDCONNECT_POINT and CLOUDCONNECT_ERROR.
    """
    chosen = profile or os.environ.get("CLOUDCONNECT_PROFILE") or DEFAULT_PROFILE
    made = Job(
        name=name,
        schedule=Schedule(schedule.strip()),
        words=_absolute((*words, *ctx.meta["tail"])),
        profile=chosen,
        pre=pre,
        post=post,
        on_failure=on_failure,
        jitter=parse_duration(jitter),
        created=time.time(),
    )
    console = Console(as_json)
    for missing in _missing(load(os.environ, chosen), made):
        console.note(f"note: {missing}")
    path = save_job(os.environ, made)
    due = made.schedule.after(made.created)
    text = f"Job {name} is due next on {local_time(due)}; it is in {path}."
    text += " The agent runs it, where that runs: twist cloudconnect-agent"
    console.record("job", {"name": name, "path": str(path), "due": due}, printable(text))


def _missing(profile: Profile | None, made: Job) -> Iterator[str]:
    """What keeps a job from running where nobody can be asked."""
    if profile is None:
        yield f"there is no profile {made.profile} yet: run cloudconnect connect first"
        return
    login = profile.password_file or profile.certificate
    phrase = profile.passphrase_file or profile.key_file
    if profile.encryption not in ("", EncryptionMode.TENANT.value):
        phrase = "none is needed"
    for what, known, options, variables in (
        ("login password", login, ("--password-file", "--certificate"), _LOGIN),
        ("encryption passphrase", phrase, ("--passphrase-file", "--key-file", "--kit"), _PHRASE),
    ):
        named = any(word.partition("=")[0] in options for word in made.words)
        if not (known or named or any(map(os.environ.get, variables))):
            yield (
                f"profile {made.profile} names no file with the {what}, and when the job runs "
                f"nobody can be asked: run cloudconnect connect again with {options[0]} FILE"
            )


def _absolute(words: tuple[str, ...]) -> tuple[str, ...]:
    """Check the words as ``backup`` would, and make their paths absolute: agents run elsewhere."""
    from cloudconnect.cli.backup import backup

    given = [word for word in words if word != "--"]
    if any(word in ("--job", "--profile", "--json") for word in given):
        raise UsageError("a job has its name, its profile and its output from the job itself")
    try:
        context = backup.make_context("job", list(words), resilient_parsing=False)
    except click.ClickException as error:
        raise UsageError(error.format_message()) from None
    if context.params["stdin_name"]:
        raise UsageError("a job has no standard input: use --stdin-from-command NAME -- CMD")
    if context.params["command_name"]:
        return words
    paths = set(context.params["paths"])
    for path in paths:
        if not os.path.isabs(path) and words.count(path) > 1:  # noqa: PTH117
            raise UsageError(f"{path!r} stands there twice: name the path as an absolute one")
    return tuple(os.path.abspath(word) if word in paths else word for word in words)  # noqa: PTH100


@job.command("list")
@_json
def list_jobs(as_json: bool) -> None:
    """List the jobs: when they are due, and what became of them."""
    from cloudconnect.tap.agent import repository_of

    console, states = Console(as_json), States(states_path(os.environ))
    jobs, wrong = load_jobs(os.environ)
    for found in jobs:
        state = states.of(found.name)
        lock = lock_path(os.environ, repository_of(os.environ, found))
        cut_off = bool(state.started and not state.ended) and not is_held(lock)
        due = found.schedule.after(max(state.due, found.created))
        fields = {
            "name": found.name,
            "schedule": found.schedule.text,
            "words": list(found.words),
            "profile": found.profile,
            "due": due,
            "started": state.started or None,
            "ended": state.ended or None,
            "status": state.status if state.ended else None,
            "succeeded": state.succeeded or None,
            "point": state.point,
            "error": state.error,
            "cut_off": cut_off,
        }
        text = f"{found.name}  {found.schedule.text}  "
        if due + found.jitter + LATE_SECONDS < time.time():
            text += f"WAS DUE {local_time(due)}: does the agent run (twist cloudconnect-agent)?"
        else:
            text += f"next {local_time(due)}"
        text += f"  {_became(state, cut_off)}"
        console.record("job", fields, printable(text))
    for error in wrong:
        console.note(printable(str(error)))
    if not jobs:
        console.say("There are no jobs: see cloudconnect job add --help")


def _became(state: Any, cut_off: bool) -> str:
    if not state.started:
        return "has not run yet"
    if cut_off:
        return f"was CUT OFF after {local_time(state.started)}: the agent runs it again"
    if not state.ended:
        return f"runs since {local_time(state.started)}"
    if state.error:
        return f"FAILED {local_time(state.ended)} ({state.status}): {state.error}"
    return f"done {local_time(state.ended)}, restore point {state.point[:8]}"


@job.command("remove")
@click.argument("name")
@_json
def remove(name: str, as_json: bool) -> None:
    """Forget a job; its restore points stay."""
    remove_job(os.environ, name)
    Console(as_json).record("job_removed", {"name": name}, f"Job {name} is removed.")


@job.command("run")
@click.argument("name")
@_json
@click.option("--debug", is_flag=True, help="The log and tracebacks on standard error.")
def run_now(name: str, as_json: bool, debug: bool) -> int:
    """Run a job now, with what comes before and after it."""
    from cloudconnect.tap.agent import repository_of

    found = load_job(os.environ, name)
    descriptor = take_lock(lock_path(os.environ, repository_of(os.environ, found)))
    if descriptor is None:
        raise Busy("another job of this repository runs now: try again later")
    states = States(states_path(os.environ))
    try:
        states.change(name, started=time.time(), ended=0.0)
        outcome = Outcome(status=1, error="it was interrupted")

        async def work(reactor: Any, interrupt: Interrupt) -> Outcome:
            running = JobRun(reactor, found, os.environ)
            interrupt.call = running.stop
            return await running.run()

        try:
            outcome = run(work, debug)
        finally:
            keep_outcome(States(states_path(os.environ)), name, outcome, time.time())
    finally:
        os.close(descriptor)
    console = Console(as_json)
    fields = {"name": name, "status": outcome.status, "point": outcome.point}
    text = f"Job {name} is done: restore point {outcome.point[:8]}"
    if not outcome.good:
        text = f"Job {name} failed: {outcome.error}"
    console.record("summary", {**fields, "error": outcome.error}, printable(text))
    return outcome.status
