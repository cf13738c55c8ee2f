"""Where a Redis command goes, and why: what Envoy's filter does with it, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metaprotocol.api.explain import Line, Tone
from metaprotocol.envoy.fields import percent_of

REDIS = "redis"
_FILTER = "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy"

# What Envoy takes for commands that write (source/extensions/filters/network/common/redis/
# supported_commands.h). All others it takes for reading.
_WRITE = """
append bitfield decr decrby del discard exec expire expireat eval evalsha geoadd getdel hdel hincrby
hincrbyfloat hmset hset hsetnx incr incrby incrbyfloat linsert lmove lpop lpush lpushx lrem lset
ltrim mset multi persist pexpire pexpireat pfadd psetex restore rpop rpush rpushx sadd set setbit
setex setnx setrange spop srem zadd zincrby touch zpopmin zpopmax zrem zremrangebylex
zremrangebyrank zremrangebyscore unlink
"""
_WRITING = frozenset(_WRITE.split())


@dataclass(frozen=True)
class RedisSnapshot:
    """The filter of one port that speaks Redis."""

    name: str
    proxy: Mapping[str, Any]
    """RedisProxy in JSON form."""
    codec: str = REDIS

    @property
    def host(self) -> str:
        """The service's host."""
        return self.name.rpartition("|")[0]

    @property
    def port(self) -> int:
        """The service's port."""
        return int(self.name.rpartition("|")[2])

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of what is spoken there."""
        return (REDIS,)


def redis_snapshot(name: str, typed_config: Mapping[str, Any]) -> RedisSnapshot | None:
    """The snapshot in the JSON form of a filter's ``typed_config``; None: another filter."""
    if typed_config.get("@type") != _FILTER:
        return None
    return RedisSnapshot(name, typed_config)


@dataclass(frozen=True)
class RedisExplanation:
    """What becomes of a command."""

    filter: str
    command: str
    key: str
    route: str | None
    """The prefix, in words; None: no route takes the command."""
    passed: tuple[str, ...] = ()
    """Longer prefixes, that the key does not begin with."""
    destinations: tuple[tuple[str, float], ...] = ()
    sent_key: str = ""
    """The key as the server sees it."""
    mirrors: tuple[tuple[str, float], ...] = ()
    faults: tuple[str, ...] = ()
    needs_login: bool = False
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The endpoints of each cluster, as "address:port", where they are known."""

    def lines(self) -> Iterator[Line]:
        """What becomes of the command and why, for people."""
        yield Line(f"{self.filter} ({REDIS})", Tone.TITLE)
        yield Line(f'{self.command or "any command"} of key "{self.key}"')
        if self.needs_login:
            yield Line("after AUTH: clients need a password")
        yield Line("")
        for prefix in self.passed:
            yield Line(f'prefix "{prefix}": passes it on', Tone.DIM)
        if self.route is None:
            yield Line("No route takes this command: the client gets an error.", Tone.BAD)
            return
        yield Line(f"{self.route}: takes it", Tone.GOOD)
        yield Line("")
        for fault in self.faults:
            yield Line(fault, Tone.BAD)
        for name, _ in self.destinations:
            yield self._to("to", name)
        if self.sent_key != self.key:
            yield Line(f'with the key "{self.sent_key}"')
        for name, share in self.mirrors:
            part = "a copy" if share == 100 else f"a copy of {share:.4g} %"
            yield self._to(f"and {part} to", name)

    def _to(self, what: str, name: str) -> Line:
        if name not in self.hosts:
            return Line(f"{what} {name}")
        where = ", ".join(self.hosts[name])
        return Line(f"{what} {name} ({where or 'NO HOST'})", Tone.PLAIN if where else Tone.BAD)

    def __str__(self) -> str:
        return "\n".join(line.text for line in self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "filter": self.filter,
            "codec": REDIS,
            "command": self.command,
            "key": self.key,
            "route": self.route,
            "destinations": [
                {"cluster": name, "percent": share} for name, share in self.destinations
            ],
            "sent_key": self.sent_key,
            "mirrors": [{"cluster": name, "percent": share} for name, share in self.mirrors],
            "faults": list(self.faults),
            "needs_login": self.needs_login,
        }


def explain_redis(snapshot: RedisSnapshot, command: str, key: str) -> RedisExplanation:
    """What the filter does with a command; without one, with any that has this key."""
    proxy = snapshot.proxy
    routes = proxy.get("prefix_routes", {})
    any_case = routes.get("case_insensitive", False)
    needs_login = bool(proxy.get("downstream_auth_passwords"))
    compared = key.lower() if any_case else key
    longest_first = sorted(
        routes.get("routes", ()), key=lambda route: (-len(route.get("prefix", "")), route["prefix"])
    )
    passed: list[str] = []
    taken, word = routes.get("catch_all_route"), "all that no prefix fits"
    for route in longest_first:
        prefix = route["prefix"]
        if compared.startswith(prefix.lower() if any_case else prefix):
            taken, word = route, f'prefix "{prefix}"'
            break
        passed.append(prefix)
    if taken is None:
        return RedisExplanation(
            snapshot.name, command, key, None, tuple(passed), needs_login=needs_login
        )
    mirrors = tuple(
        (mirror["cluster"], _percent(mirror.get("runtime_fraction")))
        for mirror in taken.get("request_mirror_policy", ())
        if not (mirror.get("exclude_read_commands") and command and command.lower() not in _WRITING)
    )
    cut = len(taken["prefix"]) if taken.get("remove_prefix") else 0
    return RedisExplanation(
        snapshot.name,
        command,
        key,
        word,
        tuple(passed),
        ((taken["cluster"], 100.0),),
        key[cut:],
        mirrors,
        tuple(_faults(proxy, command)),
        needs_login,
    )


def _percent(fraction: Mapping[str, Any] | None) -> float:
    return 100.0 if fraction is None else percent_of(fraction)


def _faults(proxy: Mapping[str, Any], command: str) -> Iterator[str]:
    for fault in proxy.get("faults", ()):
        commands = [name.lower() for name in fault.get("commands", ())]
        if command and commands and command.lower() not in commands:
            continue
        what = "gets an error" if fault.get("fault_type") == "ERROR" else "waits"
        delay = f" for {fault['delay']}" if "delay" in fault else ""
        of = f" ({', '.join(commands)})" if commands and not command else ""
        yield f"{_percent(fault.get('fault_enabled')):.4g} % of them: {what}{delay}{of}"
