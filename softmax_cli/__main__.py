"""Run the command line, as ``softmax`` or ``python -m softmax_cli``."""

import signal

from softmax_cli.cli.signals import end_at_once


def main() -> None:
    """Run the command line; SIGINT ends it without a traceback even while modules are imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    from softmax_cli.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
