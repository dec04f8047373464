"""Seeds as tasks of Ray Core: the same orders as in processes here, on whatever machines the Ray cluster has.

Seeds are what is spread. A run's rollouts stay in its process: the simulator plays all clusters of an arena at once in
numpy, and collecting is about a fifth of a run's time, so workers for it could save no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from policy.errors import InvalidInputError
from training.processes import POLL_S, Failure, explain
from training.runs.order import DEFAULT_THREADS, Order, train_seed
from training.runs.seeds import Results, Watch

RETRIES: Final = 3
"""Times that a task whose machine was lost is started again elsewhere; it goes on from its last checkpoint."""

PATIENCE_S: Final = 120.0
"""A shared file system may take its lease's length, 90 s with NFS, to let go of the lock of a machine that was lost."""


def run_on_ray(orders: Mapping[int, Order], address: str | None, cpus: int, watch: Watch) -> Results:
    """Carry out the orders as tasks of Ray; one that fails does not stop the others.

    Args:
        orders: by seed; each takes as many CPUs as it has threads.
        address: of a Ray cluster whose machines share the folders of the orders, ``auto`` for the one that this machine
            belongs to; None starts one on this machine alone, and ends it.
        cpus: of that one; not read with an address.
        watch: told every `POLL_S` of every seed that has not ended.

    Raises:
        InvalidInputError: Ray is not installed, or there is no cluster at `address`.
    """
    ray = import_ray()
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
            )
        else:
            ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        where = "a Ray of its own" if address is None else f"--ray-address {address}"
        raise InvalidInputError(f"{where} cannot be reached ({error}); start it, or give another address") from error
    results: Results = {}
    try:
        task = ray.remote(max_retries=RETRIES)(train_seed)
        pending = {
            task.options(num_cpus=order.threads or DEFAULT_THREADS, name=f"seed-{seed}").remote(
                replace(order, patience=PATIENCE_S)
            ): seed
            for seed, order in orders.items()
        }
        while pending:
            ended, _ = ray.wait(list(pending), timeout=POLL_S)
            for reference in ended:
                seed = pending.pop(reference)
                try:
                    results[seed] = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    results[seed] = Failure(explain(error.cause))
                except ray.exceptions.RayError as error:
                    results[seed] = Failure(explain(error))
                watch(seed)
            for seed in pending.values():
                watch(seed)
    finally:
        ray.shutdown()
    return results


def import_ray() -> Any:
    """The package.

    Raises:
        InvalidInputError: it is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InvalidInputError(
            f"--ray needs the package ray ({error}); install it with pip install 'maddpg-scheduler[ray]', or drop --ray"
        ) from error
    return ray
