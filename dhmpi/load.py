"""Finding the user's problem and run function by name.

A name is dotted (``package.module.attribute``) or a path to a .py file, perhaps with ``:attribute`` behind it.
Whatever goes wrong, also inside the user's module, is a ProblemError of one sentence.  Evaluations load their function
through this module, so it imports only the standard library; ConfigSpace comes with the first problem.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dhmpi import external
from dhmpi.errors import ProblemError
from dhmpi.names import in_file

if TYPE_CHECKING:
    from dhmpi.problem import HpProblem

_ABSENT = object()


def load_problem(name: str) -> HpProblem:
    """Return the problem that `name` names; a path alone means the file's ``Problem``.

    Parameters
    ----------
    name : str
        For example ``dhmpi.benchmark.hps.polynome2.Problem``, ``study.py`` or ``study.py:small``.

    Raises
    ------
    ProblemError
        If it cannot be found or imported, is no :class:`dhmpi.problem.HpProblem`, or its space is empty.
    """
    found = _find(name, "Problem")
    from dhmpi.problem import HpProblem  # late: evaluations need no ConfigSpace (half a second, 75 MB)

    if not isinstance(found, HpProblem):
        raise ProblemError(f"{name!r} names no problem: it is {_no_problem(found, HpProblem)}")
    try:
        found.check()
    except ProblemError as error:
        raise ProblemError(f"{name!r} cannot be searched: {error}") from error
    return found


def load_run(name: str, with_comm: bool = True) -> Callable[..., Any]:
    """Return the run function that `name` names; a path alone means the file's ``run``.

    Parameters
    ----------
    name : str
        For example ``dhmpi.benchmark.hps.polynome2.run``, ``study.py`` or ``study.py:train``; or ``cmd:`` and a
        command, see :mod:`dhmpi.external`.
    with_comm : bool, default True
        Whether it may insist on a second argument ``comm``, the communicator of the ranks that evaluate together.

    Raises
    ------
    ProblemError
        If it cannot be found or imported, or cannot be called with one argument, the configuration.
    """
    if external.is_external(name):
        program = external.Program(name)
        program.look_for_it()
        return program
    found = _find(name, "run")
    if not callable(found):
        raise ProblemError(f"{name!r} names no run function: it is {_describe(found)}, which cannot be called")
    if inspect.iscoroutinefunction(found):
        raise ProblemError(f"{name!r} is a coroutine function; write a plain function (def, not async def)")
    try:
        signature = inspect.signature(found)
    except (ValueError, TypeError):  # written in C, without a signature
        return found
    comm = {"comm": None} if takes_comm(found) else {}
    try:
        signature.bind({}, **comm)
        if comm and not with_comm and signature.parameters["comm"].default is inspect.Parameter.empty:
            raise ProblemError(
                f"{name!r} is {_signature_of(found, signature)} and so needs a communicator: add "
                f"--num-ranks-per-eval K, or --evaluator group"
            )
    except TypeError as error:
        raise ProblemError(
            f"{name!r} must take one argument, the configuration, but is {_signature_of(found, signature)}: {error}"
        ) from error
    return found


def takes_comm(run: Callable[..., Any]) -> bool:
    """Return whether a run function has a parameter ``comm``."""
    try:
        return "comm" in inspect.signature(run).parameters
    except (TypeError, ValueError):
        return False


def _find(name: str, default: str) -> Any:
    place = in_file(name)
    _make_importable(Path.cwd())
    if place is not None:
        path, attribute = place
        return _attribute(name, _load_file(name, Path(path)), (attribute or default).split("."))
    if not all(part.isidentifier() for part in name.split(".")):
        hint = "; a path must end in .py" if "/" in name else ""
        raise ProblemError(f"{name!r} is neither a dotted name (package.module.{default}) nor a .py file{hint}")
    module, rest = _import_dotted(name, default)
    return _attribute(name, module, rest)


def _import_dotted(name: str, default: str) -> tuple[ModuleType, list[str]]:
    """Import as many leading parts of a dotted name as are modules; return the last one and the other parts."""
    parts = name.split(".")
    module = _import(name, parts[0])
    if module is None:
        raise ProblemError(f"{name!r}: there is no module {parts[0]!r}, neither in {Path.cwd()} nor installed")
    for i in range(1, len(parts)):
        # The last part is an attribute if there is one, though there may be a module of that name too.
        found = vars(module).get(parts[i]) if i == len(parts) - 1 else None
        if not hasattr(module, "__path__") or not (found is None or isinstance(found, ModuleType)):
            return module, parts[i:]
        submodule = _import(name, ".".join(parts[: i + 1]))
        if submodule is None:
            return module, parts[i:]
        module = submodule
    raise ProblemError(f"{name!r} is a module; name what is in it, such as {name}.{default}")


def _import(name: str, whole: str) -> ModuleType | None:
    """Import one module by its whole name; return ``None`` if it does not exist."""
    try:
        return importlib.import_module(whole)
    except ModuleNotFoundError as error:
        if error.name == whole:
            return None
        raise _failed(name, whole, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failed(name, whole, error) from error


def _load_file(name: str, path: Path) -> ModuleType:
    """Import a file, once: under its own name if that is free, so that its siblings find it too."""
    path = path.expanduser().absolute()
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ProblemError(f"{name!r}: {path} {what}")
    for module in list(sys.modules.values()):
        if module is not sys.modules["__main__"] and _is_same(getattr(module, "__file__", None), path):
            return module
    _make_importable(path.parent)
    digest = hashlib.sha1(str(path).encode(), usedforsecurity=False).hexdigest()[:8]
    title = path.stem if _is_free(path) else re.sub(r"\W", "_", f"{path.stem}_{digest}")
    spec = importlib.util.spec_from_file_location(title, path)
    if spec is None or spec.loader is None:
        raise ProblemError(f"{name!r}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[title] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[title]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _failed(name, path.name, error) from error
    return module


def _is_free(path: Path) -> bool:
    """Return whether importing the file's stem would give this very file, and has not given another one."""
    if path.stem in sys.modules or not path.stem.isidentifier():
        return False
    try:
        spec = importlib.util.find_spec(path.stem)
    except (ImportError, ValueError):
        return False
    return spec is not None and _is_same(spec.origin, path)


def _is_same(file: str | None, path: Path) -> bool:
    try:
        return file is not None and Path(file).name == path.name and path.samefile(file)
    except OSError:
        return False


def _make_importable(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _attribute(name: str, module: ModuleType, parts: list[str]) -> Any:
    found: Any = module
    for i, part in enumerate(parts):
        owner = found
        try:
            found = getattr(owner, part, _ABSENT)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a module or a class may compute its attributes
            raise _failed(name, ".".join([module.__name__, *parts[: i + 1]]), error) from error
        if found is _ABSENT:
            public = _public(owner)
            has = f"it has {', '.join(public)}" if public else "it has none that are public"
            what, word = (
                f"module {owner.__name__}" if isinstance(owner, ModuleType) else repr(parts[i - 1]),
                "attribute",
            )
            if hasattr(owner, "__path__"):
                what, word = f"package {owner.__name__}", "module or attribute"
            raise ProblemError(f"{name!r}: {what} has no {word} {part!r}; {has}")
    return found


def _public(owner: Any) -> list[str]:
    """Return the names that somebody may have meant: public, and not merely imported there."""
    submodules = {found.name for found in pkgutil.iter_modules(getattr(owner, "__path__", []))}
    names = getattr(owner, "__all__", None)
    if names is None:
        names = [name for name, value in getattr(owner, "__dict__", {}).items() if not _is_imported(value, owner)]
    return sorted(name for name in submodules.union(names) if not name.startswith("_"))


def _is_imported(value: Any, owner: Any) -> bool:
    if isinstance(value, ModuleType):
        return True
    elsewhere = getattr(value, "__module__", None) != getattr(owner, "__name__", None)
    return isinstance(owner, ModuleType) and elsewhere and (inspect.isclass(value) or inspect.isroutine(value))


def _no_problem(found: Any, problem: type) -> str:
    """Say what is there instead of a problem, and what to do."""
    advice = f"make it an instance of {problem.__module__}.{problem.__name__}"
    if inspect.isclass(found):
        return f"the class {found.__name__}; assign an instance, as in Problem = {found.__name__}()"
    if inspect.isroutine(found):
        return f"the function {found.__name__}; assign what it returns, as in Problem = {found.__name__}()"
    if type(found).__name__.endswith("Problem"):
        return f"a {type(found).__module__}.{type(found).__name__}; {advice}, which has the same methods"
    return f"{_describe(found)}; {advice}"


def _describe(found: Any) -> str:
    if isinstance(found, ModuleType):
        return f"the module {found.__name__}"
    return f"an object of type {type(found).__name__}"


def _signature_of(found: Any, signature: inspect.Signature) -> str:
    return f"{getattr(found, '__name__', type(found).__name__)}{signature}"


def _failed(name: str, module: str, error: BaseException) -> ProblemError:
    """Return what to say when the user's module has raised: its own words, and where."""
    if isinstance(error, SystemExit):
        words = f"it called sys.exit({error.code!r})" if error.code is not None else "it called sys.exit()"
    elif isinstance(error, SyntaxError):
        words = f"{type(error).__name__}: {error.msg}"
    elif isinstance(error, ProblemError):
        words = str(error)
    else:
        text = " ".join(str(error).split())
        words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    place = _place(error)
    return ProblemError(f"{name!r}: {module} cannot be imported: {words}{f' ({place})' if place else ''}")


def _place(error: BaseException) -> str:
    """Return file:line of the innermost frame in the user's own code, failing that of the innermost."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen importlib") and frame.filename != __file__
    ]
    own = [frame for frame in frames if not _is_library(frame.filename)]
    for frame in reversed(own or frames):
        return f"{frame.filename}:{frame.lineno}"
    return ""


def _is_library(file: str) -> bool:
    paths = sysconfig.get_paths()
    libraries = [paths[key] for key in ("stdlib", "purelib", "platlib")] + [str(Path(__file__).parent)]
    return any(Path(file).is_relative_to(library) for library in libraries)
