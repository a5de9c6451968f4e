"""`python -m bench.streams [N]`: N paced streams at once on one process. Are all complete, and what does one weigh?"""

import argparse
import sys

from bench import gateways, kodna, load, processes, report, tools

CHUNKS = 200


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description="Many paced streams on one process.")
    parser.add_argument("count", type=int, nargs="?", default=1000, help="default 1000")
    parser.add_argument("--server", choices=report.SERVERS, default="daphne")
    options = parser.parse_args()
    processes.raise_file_limit()
    port = tools.free_port()
    try:
        with tools.workshop(), load.upstream(port):
            gateway = kodna.prepare(options.server, port, tools.free_port())
            with gateways.running(gateway) as tree:
                figures = load.Bench(gateway, tree).measure(load.stream_step(options.count, CHUNKS))
    except (tools.MissingError, gateways.FailedError) as reason:
        print(f"could not measure: {reason}", file=sys.stderr)
        return 2
    print(report.streams_line(options.server, figures))
    if complaint := figures.get("complaint"):
        print(complaint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
