"""The machine under the cluster: what is changed on it for the tests, and put back."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.control_plane.toolchain import BuildError

KERNEL_SETTINGS = (
    # kubelet's
    *("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"),
    # the engine's
    *("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/forwarding"),
)
OUTSIDE = "198.51.100.1"
"""An address for documentation, which nobody has: packets for it would take the default route."""


def command(*words: str, stdin: str | None = None) -> str:
    """Run a program and return what it wrote on stdout.

    Raises:
        BuildError: it failed; with what it said.
    """
    done = subprocess.run(words, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def kernel_settings_kept() -> Iterator[None]:
    """Put back at the end what kubelet and the engine set for the whole machine."""
    files = [Path("/proc/sys", name) for name in KERNEL_SETTINGS]
    before = {file: file.read_text() for file in files if file.exists()}
    try:
        yield
    finally:
        for file, value in before.items():
            if file.read_text() != value:
                file.write_text(value)


@contextmanager
def firewall_kept() -> Iterator[None]:
    """Put the firewall's tables back as they were: an engine that ends leaves its chains."""
    chains = {"filter": ("INPUT", "FORWARD", "OUTPUT"), "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")}
    empty = {
        table: "\n".join([f"*{table}", *(f":{name} ACCEPT [0:0]" for name in names), "COMMIT"]) + "\n"
        for table, names in chains.items()
    }
    before = {table: command("iptables-save", "-t", table) or empty[table] for table in chains}
    try:
        yield
    finally:
        for text in before.values():
            command("iptables-restore", stdin=text)


@dataclass(frozen=True)
class Rule:
    """One rule that refuses what would leave by one device."""

    tool: str
    chain: str
    device: str

    @property
    def words(self) -> list[str]:
        """As the tool takes it, behind -I, -C or -D."""
        return [self.chain, "-o", self.device, "-j", "REJECT"]

    @property
    def holds(self) -> bool:
        """Whether it stands."""
        return subprocess.run([self.tool, "-C", *self.words], capture_output=True).returncode == 0

    @property
    def refused(self) -> int:
        """Packets that it has refused so far."""
        listed = command(self.tool, "-nvxL", self.chain)
        counts = re.findall(rf"^\s*(\d+)\s+\d+\s+REJECT\s.*\s{re.escape(self.device)}\s", listed, re.MULTILINE)
        return sum(map(int, counts))


class CutOff:
    """Containers that cannot reach anything beyond this machine."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = list(rules)

    @property
    def holds(self) -> bool:
        """Whether every rule stands, before all others of its chain."""
        return all(rule.holds for rule in self.rules)

    @property
    def refused(self) -> int:
        """Packets that were refused so far."""
        return sum(rule.refused for rule in self.rules)


@contextmanager
def cut_off() -> Iterator[CutOff]:
    """Refuse whatever containers would send out of this machine, until the end of the block.

    Raises:
        BuildError: a rule could not be made, or was gone at the end.
    """
    user_chain = subprocess.run(["iptables", "-nL", "DOCKER-USER"], capture_output=True).returncode == 0
    chains = {"iptables": "DOCKER-USER" if user_chain else "FORWARD", "ip6tables": "FORWARD"}
    rules = [Rule(tool, chain, device) for device in uplinks() for tool, chain in chains.items()]
    cut = CutOff(rules)
    made: list[Rule] = []
    try:
        for rule in rules:
            command(rule.tool, "-I", *rule.words)
            made.append(rule)
        yield cut
        if not cut.holds:
            raise BuildError("a rule that cut the containers off was taken away while they ran")
    finally:
        for rule in made:
            if rule.holds:
                command(rule.tool, "-D", *rule.words)


def uplinks() -> list[str]:
    """The devices through which this machine reaches others by default."""
    routes = [route for family in ("-4", "-6") for route in json.loads(command("ip", family, "-json", "route", "show", "default") or "[]")]  # fmt: skip  # noqa: E501
    return sorted({route["dev"] for route in routes})
