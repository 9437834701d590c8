"""Run the notebooks from start to end; nothing is written into them. python examples/notebooks/run.py [NAME.ipynb …]"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def main() -> None:
    """Stop with the traceback of the first cell that fails."""
    for path in [HERE / name for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        start = time.perf_counter()
        NotebookClient(nbformat.read(path, as_version=4), timeout=300, kernel_name="python3").execute()
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
