"""What each host says of itself: processors, memory, disks, GPUs.

Some process of every host that has the platform's processes reads it each 15 seconds and puts it into the broker's
Redis, where it vanishes with its host. Whoever collects reads all hosts from there: also those that only work.
"""

import json
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings
from django_redis import get_redis_connection
from prometheus_client.core import Metric
from redis.exceptions import RedisError

from apps.core.errors import Unavailable
from apps.observability.collectors import gpu
from apps.observability.collectors.families import families

KEYS = "esper:host:1"
"""The 1 is the version of what ``read`` returns."""
NAMES = f"{KEYS}:names"
"""A sorted set: hosts, by when they said something."""
PERIOD = 15.0
ALIVE_SECONDS = 60
TURN_MILLISECONDS = int((PERIOD - 1) * 1000)


def publish() -> bool:
    """Tell how this host is, unless another of its processes did so just now; whether it was told.

    Raises:
        Unavailable: the broker's Redis does not answer.
    """
    host = socket.gethostname()
    try:
        redis = get_redis_connection("throttle")
        if not redis.set(f"{KEYS}:turn:{host}", os.getpid(), nx=True, px=TURN_MILLISECONDS):
            return False
        before = redis.get(_key(host))
        reading = read(json.loads(before) if before else {})
        pipeline = redis.pipeline(transaction=False)
        pipeline.set(_key(host), json.dumps(reading), ex=ALIVE_SECONDS)
        pipeline.zadd(NAMES, {host: reading["at"]})
        pipeline.zremrangebyscore(NAMES, "-inf", reading["at"] - ALIVE_SECONDS)
        pipeline.execute()
    except (RedisError, OSError) as error:
        raise Unavailable("the broker's Redis does not answer") from error
    return True


def read(before: dict[str, Any]) -> dict[str, Any]:
    """This host now, as JSON types; ``before`` is its last reading, since which the processors' share is told.

    Bytes, and seconds since 1970.
    """
    busy, total = _processor_seconds()
    memory = psutil.virtual_memory()
    passed = total - before.get("total", total)
    return {
        "at": time.time(),
        "busy": busy,
        "total": total,
        "cpu": min(1.0, max(0.0, (busy - before["busy"]) / passed)) if passed > 0 else None,
        "cpus": psutil.cpu_count() or 1,
        "load": psutil.getloadavg()[0],
        "memory": {"total": memory.total, "available": memory.available, "used": memory.total - memory.available},
        "disks": disks(),
        "gpus": gpu.read(),
    }


def disks() -> dict[str, dict[str, int]]:
    """Where the platform writes, each disk once: {the folder: {"total", "used", "free"}}."""
    found: dict[int, tuple[str, dict[str, int]]] = {}
    for folder in (settings.ESPER_HOME, settings.CHECKPOINTS_ROOT, Path("/")):
        try:
            device, usage = folder.stat().st_dev, psutil.disk_usage(str(folder))
        except OSError:  # not made yet, or not ours to see
            continue
        found.setdefault(device, (_mount(folder), {"total": usage.total, "used": usage.used, "free": usage.free}))
    return dict(found.values())


def readings() -> dict[str, dict[str, Any]]:
    """Host -> its reading, of those that said something within ALIVE_SECONDS. Raises Unavailable."""
    try:
        redis = get_redis_connection("throttle")
        names = [name.decode() for name in redis.zrange(NAMES, 0, -1)]
        told = redis.mget([_key(name) for name in names]) if names else []
    except (RedisError, OSError) as error:
        raise Unavailable("the broker's Redis does not answer") from error
    return {name: json.loads(text) for name, text in zip(names, told, strict=True) if text}


def told() -> Iterable[Metric]:
    """All hosts. Raises Unavailable."""
    hosts = readings()
    disk = {(host, name): usage for host, it in hosts.items() for name, usage in it["disks"].items()}
    gpus = {(host, card["gpu"]): card for host, it in hosts.items() for card in it["gpus"]}
    return families(
        {
            "esper_host_cpu_ratio": {(host,): it["cpu"] for host, it in hosts.items()},
            "esper_host_cpus": {(host,): it["cpus"] for host, it in hosts.items()},
            "esper_host_load": {(host,): it["load"] for host, it in hosts.items()},
            "esper_host_memory_bytes": {
                (host, kind): value for host, it in hosts.items() for kind, value in it["memory"].items()
            },
            "esper_host_memory_used_ratio": {
                (host,): _share(it["memory"]["used"], it["memory"]["total"]) for host, it in hosts.items()
            },
            "esper_host_disk_bytes": {
                (*at, kind): value for at, usage in disk.items() for kind, value in usage.items()
            },
            # As df has it: what is reserved for root is neither used nor free.
            "esper_host_disk_used_ratio": {
                at: _share(usage["used"], usage["used"] + usage["free"]) for at, usage in disk.items()
            },
            "esper_gpu_utilisation_ratio": {at: card["busy"] for at, card in gpus.items()},
            "esper_gpu_memory_bytes": {
                (*at, kind): card[kind] for at, card in gpus.items() for kind in ("total", "used")
            },
            "esper_gpu_memory_used_ratio": {at: _share(card["used"], card["total"]) for at, card in gpus.items()},
            "esper_gpu_temperature_celsius": {at: card["celsius"] for at, card in gpus.items()},
            "esper_gpu_power_watts": {at: card["watts"] for at, card in gpus.items()},
        }
    )


def _processor_seconds() -> tuple[float, float]:
    """(busy, in all) since the host's start, over all processors. Guests' time is part of user's already."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - idle, total


def _mount(folder: Path) -> str:
    """Where the disk of this folder is mounted: its name, to people."""
    folder = folder.resolve()
    return str(next((place for place in (folder, *folder.parents) if place.is_mount()), folder))


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _key(host: str) -> str:
    return f"{KEYS}:{host}"
