import sys
from pathlib import Path

# toys.py is shared by the tests of this folder (importlib mode puts no folder on the path)
sys.path.insert(0, str(Path(__file__).parent))
