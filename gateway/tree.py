"""`fl-server tree`: a root in this process, and its gateways beside it, on this machine or on a Ray cluster."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from featherfed.errors import ConfigError
from featherfed.gateway.keeper import GatewayHost, Keeper
from featherfed.gateway.serving import GatewayPlan, Root, gateway_config, reached
from featherfed.server.config import RunConfig
from featherfed.server.door import tokens
from featherfed.server.door.doorkeeper import Doorkeeper
from featherfed.server.door.entrance import EntranceOptions, bind
from featherfed.server.door.limits import limits_for
from featherfed.server.serving import RunPlan, check, serve_and_print
from featherfed.server.storage.run_folder import RunFolder
from featherfed.wire.address import is_host, is_loopback

ANY = ("0.0.0.0", "::")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayHosting:
    """How the gateways are started: `port` is that of the first, 0 for free ones; `ray` None is on this machine.

    `root_host` is what they call the root's machine, `ca` who signed its certificate.
    """

    port: int
    ray: str | None = None
    root_host: str | None = None
    ca: str | None = None

    def flags(self) -> list[str]:
        """Return the flags that say the same again, without those that are not given; port 0 picks others.

        >>> GatewayHosting(port=9001, ca="root.pem").flags()
        ['--gateway-port', '9001', '--gateway-ca', 'root.pem']
        """
        port = str(self.port) if self.port else None
        said = {"--gateway-port": port, "--ray": self.ray, "--root-host": self.root_host, "--gateway-ca": self.ca}
        return [word for flag, value in said.items() if value is not None for word in (flag, value)]


def serve_tree(run: RunPlan, hosting: GatewayHosting) -> str | None:
    """Serve a run by a root and its gateways to its end; return None when it is done, or why it pauses."""
    config, entrance = run.config, run.entrance
    if not config.gateways:
        path = run.resumed.path if run.resumed else run.name
        raise ConfigError(f"the run {path} has no gateways; go on with fl-server serve --resume {path}")
    check(config, run.data_dir)
    gateway_config(config, (0, config.gateways))
    if hosting.port and hosting.port + config.gateways - 1 > 65535:
        raise ConfigError(f"--gateway-port {hosting.port} leaves no port for the last of {config.gateways} gateways")
    if hosting.root_host is not None and not is_host(hosting.root_host):
        raise ConfigError(f"--root-host {hosting.root_host!r} is not a host, like 10.0.0.1 or root.example")
    if hosting.ca and not entrance.tls_cert:
        raise ConfigError("--gateway-ca is for a root with --tls-cert")
    files = entrance.token_file(run.home)
    doors = replace(
        entrance,
        tokens=files and files.absolute(),
        tls_cert=entrance.tls_cert and entrance.tls_cert.absolute(),
        tls_key=entrance.tls_key and entrance.tls_key.absolute(),
    )
    ca = hosting.ca and str(Path(hosting.ca).absolute())
    # Who starts them lets them in: a token that is written down nowhere.
    lent, token = tokens.make("gateway-*") if files else (None, None)
    with contextlib.ExitStack() as stack:
        host, gateway_host = _ground(stack, hosting, doors, config)

        def plan(index: int, url: str, folder: RunFolder) -> GatewayPlan:
            return GatewayPlan(
                config=gateway_config(config, (index, config.gateways)),
                index=index,
                of=config.gateways,
                root=Root(url=reached(url, host), token=token, ca=ca, insecure=entrance.insecure),
                entrance=replace(doors, port=hosting.port + index if hosting.port else 0),
                folder=folder.path.absolute() / f"gateway-{index}",
                durable=run.durable,
                decode_threads=run.decode_threads,
            )

        keeper = Keeper(gateways=config.gateways, plan=plan, gateway_host=gateway_host)
        # The limits are for phones, which come to the gateways.
        door = replace(
            entrance,
            lent=(lent,) if lent else (),
            max_connections=None,
            max_per_address=None,
            max_handshakes=None,
        )
        again = (*entrance.flags(), *hosting.flags())
        return serve_and_print(replace(run, entrance=door, beside=keeper.beside, command="tree", again=again))


def _ground(
    stack: contextlib.ExitStack, hosting: GatewayHosting, doors: EntranceOptions, config: RunConfig
) -> tuple[str | None, Callable[[], GatewayHost]]:
    """Return what gateways call the root's machine (None: as the root does), and where they run."""
    if hosting.ray is None:
        from featherfed.gateway.processes import LocalHost

        for index in range(config.gateways if hosting.port else 0):
            _check_port(doors.host, hosting.port + index)
        return hosting.root_host or (LOOPBACK if doors.host in ANY else None), LocalHost
    from featherfed.gateway.actors import ActorHost
    from featherfed.gateway.ray_cluster import cluster

    ray = stack.enter_context(cluster(hosting.ray))
    ready = int(ray.cluster_resources().get("CPU", 0))
    if ready < config.gateways:
        raise ConfigError(f"the Ray cluster has {ready} CPUs, and each of {config.gateways} gateways takes one")
    others = len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}) > 1
    if others and is_loopback(doors.host):
        raise ConfigError(f"--host {doors.host} is out of reach of the cluster's other machines; say --host 0.0.0.0")
    here = str(ray.util.get_node_ip_address())
    return hosting.root_host or (here if doors.host in ANY else None), lambda: ActorHost(
        ray, any_host=doors.host in ANY
    )


def _check_port(host: str, port: int) -> None:
    """Raise `ConfigError` for a port that is taken, before the run has its folder."""
    bind(host, port, Doorkeeper(limits_for(1)), speaks_tls=False, flag="--gateway-port").close()
