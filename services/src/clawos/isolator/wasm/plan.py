"""The service's side: what a sandbox needs for a WebAssembly module, and the command line that runs it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from clawos.isolator.errors import SpecInvalid
from clawos.isolator.plan import Bind, Mount, Operation
from clawos.isolator.quotas import Wasm
from clawos.isolator.runtimes import source_of
from clawos.isolator.spec import Spec
from clawos.isolator.wasm.options import Limits, Options, command

# Of the call's wall clock: the runner's own clock ends first, because it says more than a kill does.
_WALL_SHARE = 0.9


def add_module(
    wanted: MutableMapping[str, Operation],
    spec: Spec,
    limits: Wasm,
    wall_s: float,
    cwd: str,
    directories: tuple[str, ...],
) -> tuple[str, ...]:
    """Add the module to what the sandbox has; returns the argument vector. Raises SpecInvalid."""
    module = spec.argv[0]
    source = source_of(spec, "module", directories)
    seen = _directories(wanted, spec)
    wanted[module] = Bind(module, source, Mount.READ, is_directory=False)
    return command(
        Options(
            limits=Limits(
                fuel=limits.fuel,
                memory_bytes=limits.memory_bytes,
                stack_bytes=limits.stack_bytes,
                tables=limits.tables,
                table_elements=limits.table_elements,
                module_bytes=limits.module_bytes,
                wall_ms=max(1, int(wall_s * 1000 * _WALL_SHARE)),
            ),
            read=tuple(path for path, write in seen.items() if not write),
            write=tuple(path for path, write in seen.items() if write),
            here=cwd if cwd in seen else "",
            module=module,
            arguments=spec.argv[1:],
        )
    )


def _directories(wanted: Mapping[str, Operation], spec: Spec) -> dict[str, bool]:
    """What WASI opens for the module, and whether it may be changed: the home, what `read` names, /tmp.

    Nothing else of the sandbox's root: no /usr, no /proc.
    """
    seen = {"/tmp": True}  # noqa: S108 # the sandbox's own
    homes = [path for path in wanted if path.startswith("/home/")]
    for path in (*homes, *spec.read):
        match wanted.get(path):
            case Bind(_, _, flags, True):
                seen[path] = bool(flags & Mount.WRITE)
            case Bind():
                raise SpecInvalid(f"spec: read: {path} is a file; WASI opens directories")
    return seen
