"""What options contradict, and whether results can be written."""

import argparse
import os
from pathlib import Path

# What each of these options decides in place of others.
WITHOUT_EFFECT = {
    "trace": ("workload", "cv", "shape", "at_once"),
    "at_once": ("rate", "rates", "cv", "shape"),
    "rates": ("rate",),
    "deployment": ("model", "gpu", "tensor_parallel_size", "kv_cache_dtype"),
}
# What each of these options needs beside it.
ONLY_WITH = {
    "trace": ("trace_time_unit_s", "trace_hash_tokens"),
    "model": ("gpu", "tensor_parallel_size", "kv_cache_dtype"),
}


def refuse_without_effect(options: argparse.Namespace) -> None:
    """Refuse options that another one, or its absence, would leave without effect.

    Raises:
        ValueError: names the option and what it contradicts.
    """
    given = {name for name, value in vars(options).items() if not (value is None or value is False)}
    for name, others in WITHOUT_EFFECT.items():
        for other in others:
            if name in given and other in given:
                raise ValueError(f"{_flag(other)} has no effect beside {_flag(name)}")
    for needed, others in ONLY_WITH.items():
        for name in others:
            if name in given and needed not in given:
                raise ValueError(f"{_flag(name)} has no effect without {_flag(needed)}")


def check_outputs(options: argparse.Namespace) -> None:
    """See before a long run that its results can be written; makes the folders for them.

    Raises:
        ValueError: names the option, its value and what is allowed.
    """
    for name in ("json", "csv", "output"):
        path = getattr(options, name, None)
        if path in (None, "-"):
            continue
        file = Path(path).absolute()
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise ValueError(
                f"{_flag(name)} {path!r} must be a file in a folder that can be written"
            )
    for name in ("plots", "bench_json"):
        path = getattr(options, name, None)
        if not path:
            continue
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{_flag(name)} {path!r} must be a folder ({error.strerror})"
            ) from error


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
