# SPDX-License-Identifier: Apache-2.0
"""Command line of the operator: settings in, exit code out.

Exit codes: 0 stopped by a signal, 1 crashed, 2 a setting or the cluster configuration is wrong, 3 has led and does not
any more. Of the commands that do one thing and end (``commands``): 0 done, 1 could not, 2 as above.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

from numamigration_api.machinery.logs import set_up_logs
from numamigration_operator.commands import COMMANDS, run_command
from numamigration_operator.settings import EXIT_USAGE, PROGRAM, SettingsError, read_settings, unknown_variables

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator until a signal comes, or one command; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if given[:1] and given[0] in COMMANDS:
            return run_command(given[0], given[1:])
        settings = read_settings(given)
    except SettingsError as error:
        return _refuse(error)
    set_up_logs(settings.log_format, settings.log_level)
    for name in unknown_variables():
        log.warning("environment variable is no setting", extra={"variable": name})

    # Here, so that --help and a broken setting are answered at once: these imports take most of a second.
    from numamigration_operator.cluster.client import Access, Client, ClusterConfigError
    from numamigration_operator.core.fleet import Fleet, FleetSettings
    from numamigration_operator.handlers import quiet_kopf
    from numamigration_operator.runtime import operate

    quiet_kopf()
    access = Access(settings.kubeconfig, settings.context)
    fleet = Fleet(
        FleetSettings(
            agent_node_selector=settings.agent_nodes,
            status_interval_seconds=settings.status_interval_seconds,
            statistics_interval_seconds=settings.statistics_interval_seconds,
            restore_deadline_seconds=settings.restore_deadline_seconds,
            breaker_percent=settings.circuit_breaker_percent,
            breaker_nodes_min=settings.circuit_breaker_nodes_min,
        )
    )
    try:
        return asyncio.run(operate(settings, lambda observe: Client.connect(access, observe), fleet))
    except (ClusterConfigError, SettingsError) as error:
        return _refuse(error)


def _refuse(error: Exception) -> int:
    sys.stderr.write(f"{PROGRAM}: {error}\n")
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
