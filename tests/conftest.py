"""What holds for every test: one thread a process, as two test processes share the processor.

Two workers with two threads each wait for one another: small products took five to ten times
as long. Child processes inherit the setting.
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
