"""vLLM's entry point: the flags, the alias "sarathi", nothing unless asked.

vLLM calls ``register`` in every process that it starts. It wraps three methods
of ``EngineArgs``: the one that builds the parser, the one that reads its result
and the one that makes the engine's configuration.
"""

import argparse
import functools
import json
from collections.abc import Mapping
from typing import Any

from vllm_sarathi.config import SETTINGS_KEY, SarathiConfig
from vllm_sarathi.engine_limits import check_limits
from vllm_sarathi.scheduler.vllm_versions import check_vllm_version
from vllm_sarathi.scheduler_choice import (
    ALIAS,
    SCHEDULERS,
    is_ours,
    joined,
    needs_scheduler,
    refuse_typo,
    resolved,
    settings_in,
    with_scheduler,
)

_SYNC_CLASS = "vllm_sarathi.SarathiScheduler"
_ASYNC_CLASS = "vllm_sarathi.AsyncSarathiScheduler"
_MIDDLEWARE = "vllm_sarathi.front_end.middleware.ObjectivesMiddleware"


@functools.cache
def register() -> None:
    """Teach vLLM the flags and the alias. Idempotent; activates nothing."""
    from vllm.engine.arg_utils import EngineArgs

    EngineArgs.add_cli_args = staticmethod(_with_flags(EngineArgs.add_cli_args))
    EngineArgs.from_cli_args = classmethod(_with_flag_values(EngineArgs.from_cli_args.__func__))
    EngineArgs.create_engine_config = _with_alias(EngineArgs.create_engine_config)


def _is_sync(scheduler_cls: str | type) -> bool:
    """Whether a class works with ``async_scheduling=False`` alone; the alias works with both."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    if scheduler_cls == ALIAS:
        return False
    found = resolved(scheduler_cls) if isinstance(scheduler_cls, str) else scheduler_cls
    return not issubclass(found, AsyncScheduler)


def _with_flags(add_cli_args: Any) -> Any:
    @functools.wraps(add_cli_args)
    def wrapper(parser: Any) -> Any:
        parser = add_cli_args(parser)
        group = parser.add_argument_group("Sarathi", "Settings of --scheduler sarathi.")
        group.add_argument(
            "--scheduler",
            choices=SCHEDULERS,
            help="vLLM's own scheduler, or SARATHI's.",
        )
        group.add_argument(
            "--sarathi-config", type=_json_object, metavar="JSON", help="Settings as JSON object."
        )
        for name in SarathiConfig.model_fields:
            _add_flag(group, name)
        return parser

    return wrapper


def _add_flag(group: Any, name: str) -> None:
    """Add the flag of a setting; one that is on or off needs no value, as with vLLM's flags."""
    flag = name.replace("_", "-")
    options: dict[str, Any] = {
        "default": argparse.SUPPRESS,  # tells "null" from a flag that is absent
        "dest": f"sarathi_{name}",
        "help": SarathiConfig.doc(name),
    }
    if SarathiConfig.is_switch(name):
        group.add_argument(f"--no-sarathi-{flag}", action="store_false", **options)
        options |= {"nargs": "?", "const": True}
    group.add_argument(f"--sarathi-{flag}", type=_json_or_word, **options)


_YAML_WORDS = {"None": None, "True": True, "False": False}
"""How vLLM hands down null, true and false of a configuration file."""


def _json_or_word(text: str) -> Any:
    """Read a flag's value: JSON where it is any, else a word such as ``auto``."""
    if text in _YAML_WORDS:
        return _YAML_WORDS[text]
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError:
        return text


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        return SarathiConfig.require_mapping(
            json.loads(text, object_pairs_hook=_without_duplicates)
        )
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object: {error}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, unless a name stands in it twice: JSON would keep the last alone."""
    found = dict[str, Any]()
    for name, value in pairs:
        if name in found:
            raise argparse.ArgumentTypeError(
                f"{name!r} stands there twice, as {found[name]!r} and {value!r}; give it once"
            )
        found[name] = value
    return found


def _with_flag_values(from_cli_args: Any) -> Any:
    @functools.wraps(from_cli_args)
    def wrapper(cls: Any, args: argparse.Namespace) -> Any:
        flags = {
            name: getattr(args, f"sarathi_{name}")
            for name in SarathiConfig.model_fields
            if hasattr(args, f"sarathi_{name}")
        }
        settings = joined(flags, getattr(args, "sarathi_config", None) or {}, "--sarathi-config")
        chosen = with_scheduler(
            getattr(args, "scheduler", None),
            settings,
            getattr(args, "scheduler_cls", None),
            getattr(args, "additional_config", None) or {},
        )
        # In place: the app is built from these arguments, and where there are several API
        # servers they get them from here and read them before plugins are loaded.
        vars(args).update(chosen)
        if is_ours(args.scheduler_cls, args.additional_config.get(SETTINGS_KEY)):
            _add_middleware(args)
        return from_cli_args(cls, args)

    return wrapper


def _add_middleware(args: argparse.Namespace) -> None:
    """Add ours to the server's ``--middleware``."""
    middleware = getattr(args, "middleware", None)
    if middleware is not None and _MIDDLEWARE not in middleware:
        args.middleware = [*middleware, _MIDDLEWARE]


def _with_alias(create_engine_config: Any) -> Any:
    @functools.wraps(create_engine_config)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        carried = self.additional_config or {}
        settings = carried.get(SETTINGS_KEY)
        if self.scheduler_cls is None and settings:
            raise ValueError(needs_scheduler(settings))
        refuse_typo(self.scheduler_cls)
        if not is_ours(self.scheduler_cls, settings):
            return create_engine_config(self, *args, **kwargs)
        import vllm

        from vllm_sarathi.metrics.step_log import check_writable

        check_vllm_version(vllm.__version__)
        if step_log := settings_in(carried).step_log:
            check_writable(step_log)
        if _is_sync(self.scheduler_cls) and self.async_scheduling is None:
            self.async_scheduling = False
        config = create_engine_config(self, *args, **kwargs)
        _activate(config)
        return config

    return wrapper


def _activate(config: Any) -> None:
    """Settle what only the finished configuration tells: the class, the limits, the front end."""
    from vllm_sarathi.front_end import offline_metrics, request_checks
    from vllm_sarathi.metrics.exporter import share_with_engines

    scheduler = config.scheduler_config
    if scheduler.scheduler_cls == ALIAS:
        scheduler.scheduler_cls = _ASYNC_CLASS if scheduler.async_scheduling else _SYNC_CLASS
    scheduler.get_scheduler_cls()  # a class that does not exist is told before anything loads
    settings = SarathiConfig.of_engine(config)
    check_limits(
        settings,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        enable_chunked_prefill=scheduler.enable_chunked_prefill,
        is_encoder_decoder=config.model_config.is_encoder_decoder,
    )
    parallel = config.parallel_config
    is_one_of_several = parallel._api_process_count > 1 and parallel._api_process_rank >= 0
    share_with_engines(inherits=is_one_of_several)
    offline_metrics.install()
    request_checks.install()
    if settings.shed:
        from vllm_sarathi.front_end import refusals

        refusals.install()
