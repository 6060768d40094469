"""Which implementation makes the sandboxes: the one place that knows there are two."""

from __future__ import annotations

from clawos.isolator.bubblewrap import Bubblewrap
from clawos.isolator.cgroup import Cgroups
from clawos.isolator.config import Config
from clawos.isolator.ids import host_ids
from clawos.isolator.launcher import Launcher
from clawos.isolator.ports import Network, Sandbox
from clawos.isolator.python.zygote import WithZygote
from clawos.isolator.python.zygote import command as zygote_command


async def choose(config: Config, cgroups: Cgroups | None, network: Network | None = None) -> Sandbox:
    """The backend that the configuration names. Raises SandboxRefused if it cannot work here."""
    ids = host_ids(config)
    if config.backend == "launcher":
        launcher = Launcher(config.launcher, cgroups, ids, network)
        return WithZygote(launcher, lambda: launcher.another(zygote_command(config)), config)
    bubblewrap = Bubblewrap(config.bubblewrap, config.confine, cgroups, ids)
    await bubblewrap.check()
    return bubblewrap
