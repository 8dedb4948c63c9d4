"""Tests of softmax.

They use one BLAS thread, as the commands do, because the bytes of the results depend on it.
"""

from softmax_cli.cli.threads import use_threads

use_threads(None)
