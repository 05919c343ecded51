"""A worker's process: what is slow to start begins before what it needs itself is imported."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

from automl_tl.errors import AutoMLError
from automl_tl.ipc import parent_channel
from automl_tl.study import StudyDirectory
from automl_tl.worker_setup import new_host

if TYPE_CHECKING:
    from automl_tl.elsewhere import Elsewhere
    from automl_tl.host import BackendHost
    from automl_tl.worker_setup import Setup


def main() -> None:
    """Run a worker as a process; the first message is its ``Setup``, or ``Elsewhere`` one."""
    channel = parent_channel()
    try:
        first: Setup | Elsewhere = channel.receive()
        setup = first.settle(channel.send)
        if setup.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = setup.gpu
        directory = StudyDirectory.open(setup.directory)
        hosts = _started(setup, directory)
        from automl_tl.worker import Worker

        Worker(setup, directory, channel, hosts).run()
    except EOFError:
        return
    except AutoMLError as error:
        channel.send({"event": "fatal", "reason": str(error)})
    except Exception as error:  # say it before dying
        channel.send({"event": "fatal", "reason": f"{type(error).__name__}: {error}"})
        traceback.print_exc()
    os._exit(1)


def _started(setup: Setup, directory: StudyDirectory) -> dict[str, BackendHost]:
    """Start the framework, if one is certainly needed.

    Where networks stay frozen, one of several workers computes what the others read.
    """
    backends = {key.partition("/")[0] for key in directory.config.backbones}
    if len(backends) > 1 or (setup.workers > 1 and _all_frozen(directory)):
        return {}
    hosts = {name: new_host(setup, directory, name) for name in backends}
    for host in hosts.values():
        host.start()
    return hosts


def _all_frozen(directory: StudyDirectory) -> bool:
    from automl_tl.prepare import study_space

    return study_space(directory.config).frozen


if __name__ == "__main__":
    main()
