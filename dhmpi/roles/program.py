"""The one program that every rank runs: parse, start the keeper, split the world, play roles, end.

Entry points (`dhmpi.ambs` and its like) call `main` with their options and their search.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhmpi import platform
from dhmpi.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_LOST, DhmpiError
from dhmpi.evaluate.process import Keeper
from dhmpi.mpi import binding, layout, protocol, world
from dhmpi.mpi.environment import fault_tolerant, gpu_variable, gpus, launcher_rank, launcher_size
from dhmpi.mpi.post import RankLostError
from dhmpi.options import SearchOptions, parse
from dhmpi.roles.role import Crew, DeclaredDeadError, OtherRankBrokenError, Role, Spare, serve
from dhmpi.roles.screen import keep_screens
from dhmpi.rundirectory import default_path, new_id
from dhmpi.staging import Staged, moved, moved_name
from dhmpi.trials import Config

if TYPE_CHECKING:
    from dhmpi.evaluate import interface
    from dhmpi.evaluate.group import GroupEvaluator
    from dhmpi.evaluate.interface import EvaluationSpec
    from dhmpi.roles.master import Master
    from dhmpi.roles.searcher import SearchHost

OTHERS_WAIT = 2.0
"""Seconds that other ranks leave rank 0 to say what is wrong, before their end makes the launcher end it."""

REPORT_TAKES = 0.5
"""Seconds that a launcher has to pass a report on; at an abort hydra drops what it has not read yet."""


@dataclass(frozen=True)
class Program:
    """An entry point: what distinguishes one search from another.

    Parameters
    ----------
    name : str
        Of the search and of its module, ``dhmpi.<name>``.
    options : type
        A kind of `SearchOptions`.
    description : str
        First words of ``--help``.
    spec : callable
        Options -> what `dhmpi.search.build` needs besides the problem, the seed and the budget.
    fits : callable
        Options -> whether the search fits models; it then lives in a process of its own.
    with_master : bool, default False
        Whether the search costs so little that it lives in the master's process, and all other ranks evaluate.
    agents : callable, optional
        Options -> how many agents share the work of the search; by default none.
    repeats : callable, optional
        Options -> whether a configuration may be evaluated more than once; by default never.
    settle : callable, optional
        Options -> those with which the master works; called by masters only, it may read what not every rank should.
    conclude : callable, optional
        Options -> exit code; called by the last master once the search has ended well and nobody waits for this rank.
    """

    name: str
    options: type[SearchOptions]
    description: str
    spec: Callable[[Any], dict[str, Any]]
    fits: Callable[[Any], bool]
    with_master: bool = False
    agents: Callable[[Any], int] = lambda options: 0
    repeats: Callable[[Any], bool] = lambda options: False
    settle: Callable[[Any], Any] = lambda options: options
    conclude: Callable[[Any], int] = lambda options: 0

    @property
    def module(self) -> str:
        return f"dhmpi.{self.name}"

    def parse(self, arguments: Sequence[str] | None = None) -> SearchOptions:
        """Return the options of a command line, checked.

        Raises
        ------
        OptionError
        """
        options = parse(self.options, f"python -m {self.module}", self.description, arguments)
        return options if options.name else dataclasses.replace(options, name=self.name)


def main(program: Program, arguments: Sequence[str] | None = None) -> int:
    """Run a search; return the exit code of this rank."""
    started, age = time.monotonic(), platform.age()
    try:
        options = program.parse(_once(arguments))
    except DhmpiError as error:
        return _refuse_early(program, error)
    keep_screens()
    signals = _Signals()
    # Before MPI is initialised: a process that forks afterwards may take a network's registered memory with it.
    began = time.monotonic()
    keeper = Keeper.spawn() if options.in_processes or program.fits(options) else None
    rank = _Rank(program, options, keeper, signals, started, (age, time.monotonic() - began))
    try:
        return rank.run()
    except DeclaredDeadError:
        code = 0
    except OtherRankBrokenError:
        code = EXIT_BUG
        time.sleep(2 * REPORT_TAKES)  # the rank that has the report ends first
    except RankLostError as error:
        code = EXIT_LOST
        rank.report_loss(error)
    except Exception:
        code = EXIT_BUG
        rank.report_bug()
        time.sleep(REPORT_TAKES)
    if keeper is not None:
        keeper.close()
    return world.abort(code)


class _Rank:
    """What one rank does from the split of the world to its end."""

    def __init__(
        self,
        program: Program,
        options: SearchOptions,
        keeper: Keeper | None,
        signals: _Signals,
        started: float,
        startup: tuple[float, float],
    ) -> None:
        self.program = program
        self.options = options
        self.keeper = keeper
        self.signals = signals
        self.started = started
        self.startup = startup  # seconds until this program began, and to start the keeper
        self.home = Path.cwd()
        self.world: world.World | None = None
        self.group: GroupEvaluator | None = None  # evaluations in the main thread, while another one serves

    def run(self) -> int:
        try:
            stage = self.stage if self.options.stage else None
            here = self.world = world.start(self.plan, self.choose, stage, self.options.grouped)
        except DhmpiError as error:
            return _refuse_early(self.program, error)
        if here.staged is not None and here.rank == 0:
            print(f"dhmpi: {here.staged}", flush=True)
        take_up, succeed = functools.partial(self.take_up, here), functools.partial(self.succeed, here)
        crew = Crew(here.post, take_up, succeed, self.options.silence)
        code = 0
        try:
            if self.options.grouped:
                from dhmpi.evaluate.group import GroupEvaluator

                self.group = GroupEvaluator()
                self.group.work(lambda: self.play(here, crew))
            else:
                self.play(here, crew)
        except DhmpiError as error:
            if here.rank != here.master:
                raise  # only the master has words for the user
            print(f"{self.program.module}: error: {error}", file=sys.stderr, flush=True)
            code = max((role.fail() for role in crew.roles), default=0) or EXIT_BAD_INPUT
            crew.together = not here.post.dead
            here.tell_everybody(protocol.Tag.STOP, protocol.Stop(str(error), crew.together))
        self.signals.ignore_warnings()
        for role in crew.roles:
            role.close()
        if self.keeper is not None:
            self.keeper.close()
        if here.staged is not None:
            here.staged.place.release(self.options.keep_staged)
        code = max([code, *(role.exit_code for role in crew.roles)])
        concludes = here.rank == here.master and code == 0
        if here.survives and not crew.together:  # to finish is to end this process
            here.post.flush(world.LAST_MESSAGES)
            return world.finish(here, self.program.conclude(self.options) if concludes else code, crew.together)
        code = world.finish(here, code, crew.together)
        return self.program.conclude(self.options) if concludes else code

    def play(self, here: world.World, crew: Crew) -> None:
        """Play this rank's roles to their end."""
        self.add_roles(here, crew)
        serve(crew)

    def choose(self) -> world.Launch:
        """Return the name of this launch and its run directory: on rank 0, for all."""
        token, options = new_id(), self.options
        path = Path(options.log_dir) if options.log_dir else default_path(options.workflow, options.name, token)
        return world.Launch(token, str(path.absolute()))

    def stage(self, comm: Any, hosts: tuple[str, ...], launch: world.Launch) -> Staged:
        """Have copies of what evaluations need on every node (collective over comm)."""
        from dhmpi.mpi.stage import stage

        return stage(comm, hosts, self.options.staging, self.options.stage_to, Path(launch.directory))

    def plan(self, hosts: tuple[str, ...]) -> layout.Layout:
        return layout.plan(
            hosts,
            searcher=not self.program.with_master,
            ranks_per_eval=self.options.num_ranks_per_eval,
            nodes_per_eval=self.options.num_nodes_per_eval,
            job_mode=self.options.job_mode,
            node_packing_count=self.options.node_packing_count,
            evals_per_node=self.options.num_evals_per_node,
            agents=self.program.agents(self.options),
            spread_remainder=getattr(self.options, "spread_remainder", False),
        )

    def report_bug(self) -> None:
        """Say once what went wrong, and have every other rank end."""
        print(
            f"dhmpi: internal error on rank {launcher_rank()}, host {socket.gethostname()}, process {os.getpid()}; "
            f"the job ends, its journal is whole and --resume continues it\n{traceback.format_exc()}",
            file=sys.stderr,
            flush=True,
        )
        if self.world is not None:
            try:
                self.world.tell_everybody(protocol.Tag.BROKEN, protocol.Broken())
                self.world.post.flush(2.0)
            except RankLostError:
                pass  # the others learn of it by the end of this rank

    def report_loss(self, error: RankLostError) -> None:
        """Say once that a rank has gone."""
        if launcher_rank() == 0:
            print(
                f"{self.program.module}: error: a rank has died ({error}); the job ends, its journal is whole and "
                f"--resume continues it",
                file=sys.stderr,
                flush=True,
            )

    def add_roles(self, here: world.World, crew: Crew) -> None:
        """Take up this rank's roles; the master last, since it speaks to the others at once."""
        layout = here.layout
        names = layout.roles(here.rank)
        if "spare" in names:
            crew.add(Spare())
        if "evaluator" in names:
            crew.add(self.evaluator(here))
        if here.rank == layout.searcher or "agent" in names:
            crew.add(self.searcher(here))
        if self.keeper is not None and not crew.roles and not here.survives:
            self.keeper.close()  # a rank without evaluations and search needs no children
        if "master" in names:
            crew.add(master := self.master(here, heir=False))
            master.begin()

    def take_up(self, here: world.World, tag: protocol.Tag) -> Role | None:
        """Return the role that a message of some kind asks this rank to play."""
        if tag is protocol.Tag.SETUP:
            return self.evaluator(here)
        return self.searcher(here) if tag is protocol.Tag.BEGIN else None

    def succeed(self, here: world.World, crew: Crew) -> None:
        """Be the master from now on: all ranks below this one have died."""
        crew.add(master := self.master(here, heir=True, ahead=crew.ahead))
        master.begin()

    def evaluator(self, here: world.World) -> Role:
        options, host, backend = self.options, here.hosts[here.rank], functools.partial(self.backend, here)
        reports, startup = options.stopping is not None, (*self.startup, *here.startup)
        if self.group is not None:
            from dhmpi.roles.member import GRACE, Member

            spec, grace = functools.partial(self.spec, here), min(options.grace, GRACE)
            return Member(
                here,
                self.group,
                spec,
                options.eval_timeout,
                grace,
                options.silence,
                reports,
                startup,
                options.max_rss,
                self.memory,
            )
        from dhmpi.roles.evaluator import Evaluator  # roles are imported by the ranks that play them

        return Evaluator(
            here.post, host, backend, options.eval_timeout, here.clock_offset, options.silence, reports, startup
        )

    def memory(self) -> float:
        """Return what this rank uses, in MB, with what its evaluation has started."""
        aside = 0.0 if self.keeper is None else platform.tree_rss_mb(self.keeper.pid)
        return platform.tree_rss_mb(os.getpid()) - aside

    def searcher(self, here: world.World) -> Role:
        if here.layout.agents:
            os.environ.update(thread_variables(here.n_cpus))  # before numpy is imported
            from dhmpi.roles.agent import Agent

            return Agent(here.post, here.layout.agents, self.options.silence)
        from dhmpi.roles.searcher import Searcher

        return Searcher(here.post, functools.partial(self.search_host, here), self.options.silence)

    def master(self, here: world.World, heir: bool, ahead: Sequence[tuple[int, Config]] = ()) -> Master:
        from dhmpi.roles.master import Master

        options = self.program.settle(self.options)
        search = self.program.spec(options)
        return Master(here, options, self.program.module, search, self.signals.take, self.started, heir, ahead)

    def backend(self, here: world.World, setup: protocol.Setup) -> interface.Evaluator:
        """Return where this rank's evaluations happen."""
        spec = self.spec(here, setup)
        if self.options.evaluator == "inline" or self.keeper is None:
            from dhmpi.evaluate.inline import InlineEvaluator

            return InlineEvaluator(spec)
        from dhmpi.evaluate.process import ProcessEvaluator

        self.keeper.name_run(setup.run_id)
        return ProcessEvaluator(self.keeper, spec)

    def spec(self, here: world.World, setup: protocol.Setup) -> EvaluationSpec:
        """Return what this rank evaluates; an earlier launch may have left processes on its host."""
        if setup.resumed:
            platform.kill(platform.leftovers(setup.run_id, here.began))
        options = self.options
        from dhmpi.evaluate.interface import EvaluationSpec

        paths = {} if here.staged is None else here.staged.paths
        python = "python3" if options.container else moved(sys.executable, paths)
        return EvaluationSpec(
            run=moved_name(options.run, paths),
            run_directory=Path(setup.directory),
            run_id=setup.run_id,
            seed=setup.seed,
            environment={
                **thread_variables(options.num_threads_per_rank or here.n_cpus),
                **binding.environment(here.layout, here.rank, gpus(), gpu_variable()),
                **({} if here.staged is None else here.staged.environment(os.environ)),
            },
            max_rss_mb=options.max_rss,
            recycle_rss_mb=options.recycle_rss,
            task_dirs=options.task_dirs,
            log=Path(setup.directory) / "imports" / f"rank{here.rank}.out",
            chaos=options.faults,
            problem=moved_name(options.problem, paths),
            wrap=options.wrapping,
            python=python,
            home=moved(str(self.home), paths),
            watched=options.stopping is not None,
        )

    def search_host(self, here: world.World, begin: protocol.Begin) -> SearchHost:
        """Return where this rank's search lives."""
        from dhmpi.roles.searchhost import SearchHere, SearchProcess

        if self.keeper is None or self.program.with_master:
            return SearchHere()
        n_jobs = begin.spec.get("options", {}).get("n_jobs", 1)
        return SearchProcess(self.keeper, begin, thread_variables(here.n_cpus if n_jobs == -1 else n_jobs), self.home)


def _once(arguments: Sequence[str] | None) -> Sequence[str] | None:
    """Keep ``--help`` and ``--version`` to one rank."""
    words = sys.argv[1:] if arguments is None else arguments
    if launcher_rank() > 0 and {"-h", "--help", "--version"} & set(words):
        raise SystemExit(0)
    return arguments


def thread_variables(n_threads: int) -> dict[str, str]:
    """Return the environment that makes numerical libraries use `n_threads` threads."""
    names = (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
    )
    return {**dict.fromkeys(names, str(n_threads)), "TF_NUM_INTEROP_THREADS": "1"}


def _refuse_early(program: Program, error: DhmpiError) -> int:
    """Say what is wrong on one rank; all ranks know it, and none has begun."""
    if launcher_rank() == 0:
        print(f"{program.module}: error: {error}", file=sys.stderr, flush=True)
    else:  # one after another: an Open MPI that loses many at once may wait for ever (seen in one of twelve jobs)
        time.sleep(OTHERS_WAIT * (1 + launcher_rank() / max(launcher_size() or 1, 1)))
    if world.started() and fault_tolerant():
        world.leave(EXIT_BAD_INPUT)  # to finalise MPI, ranks would wait for each other
    return EXIT_BAD_INPUT


class _Signals:
    """Remembers the last signal that asked for an end; the handlers do nothing else."""

    def __init__(self) -> None:
        self._number: int | None = None
        for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self._number = number

    def take(self) -> int | None:
        number, self._number = self._number, None
        return number

    def ignore_warnings(self) -> None:
        """Heed no warning of the walltime any more: Python's end takes handlers away, and one would end the process."""
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
