"""A process that leaves its group at the end is in none, and one that was in none may leave, too."""

from importlib import import_module

import pytest
from playhead.train.group import leave_group

dist = pytest.importorskip("torch.distributed")


def test_leaving(tmp_path):
    leave_group()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    leave_group()
    assert not dist.is_initialized()


def test_the_command_line_leaves_after_a_run_that_went_well(tmp_path, monkeypatch):
    app = import_module("playhead.cli.app")  # the name in the package is that of the typer application

    for code in (0, 2):
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet{code}", rank=0, world_size=1)
        monkeypatch.setattr(app, "run", lambda args, code=code: code)
        with pytest.raises(SystemExit) as ended:
            app.main([])
        assert ended.value.code == code and dist.is_initialized() == bool(code)
    dist.destroy_process_group()
