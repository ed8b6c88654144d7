"""A folder that another process writes is refused, and free again when that one is gone, however it went."""

import subprocess
import sys

import pytest
from playhead.core.errors import DataError
from playhead.core.lock import lock_folder

HOLD = """
import sys, time
from pathlib import Path
from playhead.core.lock import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.timeout(120)
def test_one_process_at_a_time_and_a_killed_one_gives_it_back(tmp_path):
    folder = tmp_path / "deep" / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="another process collects into it now; wait for it or name another folder"):
            lock_folder(folder, "collects into it")
        other.kill()
    lock_folder(folder).close()
    lock_folder(folder).close()


def test_what_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="file: not a folder; name another one"):
        lock_folder(tmp_path / "file")
