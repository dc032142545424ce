"""Command line: arguments -> config -> job -> exit code.

    python -m rec.main --pipeline_config X [--mode train|evaluate|top_k|predict|export|index|search|check]

Exit codes: 0 done, 2 the config (or the command line) is wrong, 3 data is missing or wrong, 1 anything else.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from rec import __version__
from rec.config.errors import ConfigError, DataError
from rec.config.load import load_config
from rec.world import World

log = logging.getLogger("rec")

DONE, FAILED, WRONG_CONFIG, WRONG_DATA = 0, 1, 2, 3

MODES = {
    "train": "train, evaluate and, if the config has export_config, export (continues an unfinished run)",
    "evaluate": "metrics of a checkpoint on eval_input_path",
    "top_k": "metrics of a retrieval model's checkpoint against its whole item file (eval_config { top_k })",
    "predict": "score predict_input_path into parquet, from a checkpoint or an export",
    "export": "write <model_dir>/export from a checkpoint",
    "index": "vectors of all items by the exported item tower, and a faiss index over them, into <model_dir>/index; of "
    "a tree the vectors of its leaves, by a checkpoint",
    "search": "the nearest items of each row of predict_input_path, by the exported user tower and the index; or the "
    "best leaves of a tree, by the exported model",
    "check": "validate the config, build the model, try one step, and report; trains nothing",
}


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    p = argparse.ArgumentParser(
        prog="python -m rec.main",
        description="ProtoRec: train, evaluate and export recommender models from a .config file.",
        epilog="modes: " + "; ".join(f"{name}: {what}" for name, what in MODES.items()),
    )
    p.add_argument("--pipeline_config", required=True, metavar="FILE", help="the .config file")
    p.add_argument("--mode", choices=list(MODES), default="train", help="what to do (default: train)")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TEXT",
        help="proto text merged over the config, e.g. 'train_config { num_epochs: 2 }'; repeated fields are replaced",
    )
    p.add_argument("--model_dir", metavar="DIR", help="overrides model_dir of the config")
    p.add_argument(
        "--checkpoint",
        metavar="WHICH",
        help="evaluate, top_k, predict, export: 'best' (default where there is one), 'latest', a step or a folder",
    )
    p.add_argument("--export_dir", metavar="DIR", help="predict, index, search: take this export")
    p.add_argument(
        "--input", metavar="PATH", help="evaluate, top_k, predict, search: read this instead of the config's path"
    )
    p.add_argument("--output", metavar="DIR", help="predict, search: write here instead of the config's path")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    p.add_argument("--restart", action="store_true", help="train: forget the run in model_dir and begin anew")
    p.add_argument("-q", "--quiet", action="store_true", help="warnings and errors only")
    p.add_argument("--debug", action="store_true", help="show tracebacks")
    p.add_argument("--version", action="version", version=f"protorec {__version__}")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one job; returns its exit code."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as e:
        return int(e.code or 0)
    world = World.from_env()
    _log_to_stderr(quiet=args.quiet or not world.is_main)
    loaded = None
    try:
        loaded = load_config(args.pipeline_config, args.set)
        if args.model_dir:
            loaded.config.model_dir = args.model_dir
        for warning in loaded.warnings:
            log.warning("%s", warning)
        importlib.import_module(f"rec.jobs.{args.mode}").run(loaded, args, world)
    except ConfigError as e:
        return _failed(WRONG_CONFIG, "config", loaded.describe(e) if loaded else str(e), args.debug)
    except DataError as e:
        return _failed(WRONG_DATA, "data", str(e), args.debug)
    except KeyboardInterrupt:
        return _failed(FAILED, "stopped", "interrupted; run the same command again to continue", False)
    except Exception as e:
        ours = _is_ours_to_debug(e)
        what = type(e).__name__ if ours else type(e).__name__.removesuffix("Error").lower()
        return _failed(FAILED, what, str(e), args.debug or ours)
    finally:
        _leave_process_group()
    return DONE


def _log_to_stderr(*, quiet: bool) -> None:
    logging.basicConfig(
        level=logging.WARNING,  # of libraries: fbgemm alone prints a page per table batch
        format="%(asctime)s %(levelname).1s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # a notice to torch's own developers


def _is_ours_to_debug(error: Exception) -> bool:
    """A bug deserves its traceback; errors with a text for users (their modules say `user_error`) do not."""
    return not getattr(error, "user_error", False)


def _failed(code: int, what: str, text: str, traceback: bool) -> int:
    log.error("%s error: %s", what, text, exc_info=traceback)
    return code


def _leave_process_group() -> None:
    # Only when torch.distributed was loaded: a config error must not pay for importing torch.
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
