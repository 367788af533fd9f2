"""A router loop in a process of its own, over a cluster in a file: `python -m ... HOME PORT`."""

import asyncio
import logging
import sys
from pathlib import Path

from deployments.home import Home
from router.dataplane import Settings
from router.run import Place, run
from tests.router.fakes import FileDriver

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    home = Home(Path(sys.argv[1]))
    settings = Settings("127.0.0.1", int(sys.argv[2]), backends=4, slots=8)
    asyncio.run(run(Place("local", home), FileDriver(home.root), settings))
