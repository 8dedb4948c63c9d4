"""Run the command line, as ``softmax`` or ``python -m softmax_cli``."""

import os
import signal


def main() -> None:
    """Run the command line; SIGINT ends it without a traceback even while modules are imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
    from softmax_cli.cli.main import main as run

    try:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
