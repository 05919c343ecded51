"""A Ray cluster of two nodes on this machine, in a process of its own, which does what it is told.

Each node has a cache of its own, as two machines would: ``FOLDER/cache-0``, ``FOLDER/cache-1``, ...
"""

from __future__ import annotations

import os
import sys

CPUS = 1


def main(folder: str) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    caches = ({"AUTOML_TL_CACHE": f"{folder}/cache-{number}"} for number in range(100))
    head = {"num_cpus": CPUS, "include_dashboard": False, "env_vars": next(caches)}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    other = cluster.add_node(num_cpus=CPUS, env_vars=next(caches))
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line == "kill\n":
            cluster.remove_node(other, allow_graceful=False)
        elif line == "add\n":
            other = cluster.add_node(num_cpus=CPUS, env_vars=next(caches))
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
