"""`orchctl node`: the machines of the cluster, and what is done on one of them itself."""

import click

from orchctl import door


class _Nodes(click.Group):
    """What is done on the machine itself is here. What asks the control plane is in `nodes`, which takes a good part of
    the time to import that a machine has to join.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*self.commands, *_asking().list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _asking().get_command(ctx, cmd_name)


def _asking() -> click.Group:
    from orchctl import nodes

    return nodes.commands


@click.group(cls=_Nodes)
def command() -> None:
    """List, inspect, pause and drain nodes.

    \b
    Examples:
      orchctl node ls
      orchctl node drain n2 --deadline 10m
      orchctl node uncordon n2
      orchctl node lost n2
      orchctl node label n1 disk=ssd zone-
      orchctl node doctor --door 10.0.0.1:7401
      orchctl node leave
      orchctl node taint n1 gpu=a100:no-schedule
    """


@command.command()
@click.option("--token", required=True, help="The token, @FILE, or - to read it: arguments are seen by everybody.")
@click.option("--server", metavar="HOST[:PORT]", default="", help="Where the control plane is reached.")
@click.option("--door", "at", metavar="HOST:PORT", default="", help="Its door.  [default: port 7401 of --server]")
@click.option("--name", default="", help="What the node is called.  [default: the host's name]")
@click.option("--address", default="", help="Where other nodes reach it.  [default: its own on the way to --server]")
@click.option(
    "--state", type=click.Path(), help="Only get a certificate, into this state folder of an agent that you start."
)
def join(*, token: str, server: str, at: str, name: str, address: str, state: str | None) -> None:
    """Make this machine a node: certificate, configuration, and the agent's service. As root, on the machine itself.

    A join that did not come to its end may be repeated with the same token.

    \b
    Examples:
      orchctl node join --server 10.0.0.1 --token @token
      echo TOKEN | orchctl node join --server 10.0.0.1 --token -
      orchctl node join --server 10.0.0.1 --token @token --name n7 --address 10.0.1.7
    """
    if state is None and server:
        said = {"--server": server, "--door": at, "--name": name, "--address": address}
        door.become("deploy.host", "node", f"--token={token}", *(f"{key}={text}" for key, text in said.items() if text))
    if state is None or not at:
        raise click.UsageError(
            "say where the control plane is with --server HOST; or, to start the agent yourself, "
            "its door with --door HOST:PORT and the agent's folder with --state DIR"
        )
    named = [f"--name={name}"] if name else []
    door.become("agent.join", f"--token={token}", f"--door={at}", f"--state={state}", *named)


@command.command()
@click.option("--config", type=click.Path(), help="What the agent is told.  [default: /etc/orch/agent.yaml]")
@click.option("--state", type=click.Path(), help="The state folder of an agent that you started yourself.")
@click.option("--trust", type=click.Path(), help="The folder with its certificate.  [default: STATE/trust]")
@click.option("--address", help="The address at which other nodes reach this one.")
@click.option("--door", "at", metavar="HOST:PORT", help="The door of a control plane, to compare clocks with.")
@click.option("--ids", metavar="FIRST:COUNT", help="The ids that containers get, as the agent was told.")
@click.option("--blob-port", metavar="PORT", help="As the agent was told.")
@click.option("--metrics-port", metavar="PORT", help="As the agent was told.")
@click.option("--resolv-conf", type=click.Path(), help="As the agent was told.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="The same for programs.")
def doctor(at: str | None, **said: str | None) -> None:
    """Look at this machine as a node, before it joins and after. As root, on the machine itself.

    A line for everything that was looked at: `ok`, `warning` or `failed`, what that means, and what to do. Nothing is
    changed. The exit code is 1 when something has failed. What is not said here is as /etc/orch/agent.yaml has it,
    when there is one and no --state is said.

    \b
    Examples:
      orchctl node doctor
      orchctl node doctor --address 10.0.0.11 --door 10.0.0.1:7401
    """
    options = {**said, "door": at}
    door.become("agent.doctor", *(f"--{name.replace('_', '-')}={text}" for name, text in options.items() if text))


@command.command()
@click.option("--state", type=click.Path(), help="The state folder of an agent that you started yourself.")
@click.option("--run-dir", type=click.Path(), help="The runtime's folder, if that agent was given one.")
@click.option("--cgroup-parent", help="The cgroup that it was given.  [default: /orch]")
@click.option("--stop-agent", is_flag=True, help="End the agent if it runs; systemd's is ended in any case.")
@click.option("--kill-tasks", is_flag=True, help="Kill the tasks that run here.")
def leave(
    *, state: str | None, run_dir: str | None, cgroup_parent: str | None, stop_agent: bool, kill_tasks: bool
) -> None:
    """Take the node off this machine: containers, network, control groups and files. As root, on the machine itself.

    Without --state it is the node that `orchctl node join` has made: its service ends, and its certificate and
    /etc/orch/agent.yaml go, too. It refuses while a task runs, unless told to kill it. Have the node drained first;
    it may be said again.

    \b
    Examples:
      orchctl node leave
      orchctl node leave --kill-tasks
      orchctl node leave --state ~/n1 --stop-agent
    """
    said = {"--stop-agent": stop_agent, "--kill-tasks": kill_tasks}
    told = [option for option, is_said in said.items() if is_said]
    if state is None:
        if run_dir or cgroup_parent:
            raise click.UsageError("--run-dir and --cgroup-parent are of an agent that is named by --state DIR")
        door.become("deploy.host", "leave", *told)
    where = {"--state": state, "--run-dir": run_dir, "--cgroup-parent": cgroup_parent}
    door.become("agent.leave", *(f"{key}={text}" for key, text in where.items() if text), *told)
