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

from vllm_sarathi.config import SETTINGS_KEY, SarathiConfig, is_ours, resolved
from vllm_sarathi.scheduler.vllm_versions import check_vllm_version

SCHEDULERS = ("default", "sarathi")
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


def with_scheduler(
    scheduler: str | None,
    settings: Mapping[str, Any],
    scheduler_cls: str | type | None,
    additional_config: Mapping[str, Any],
) -> dict[str, Any]:
    """Engine arguments that choose a scheduler and carry its settings.

    Args:
        scheduler: one of ``SCHEDULERS``; None leaves the choice to ``scheduler_cls``.
        settings: settings of ``SarathiConfig``; they override those that
            ``additional_config`` carries already.
        scheduler_cls: vLLM's own argument.
        additional_config: vLLM's own argument.

    Returns:
        ``scheduler_cls`` and ``additional_config``, ready for ``EngineArgs``.

    Raises:
        ValueError: a setting is wrong, or the arguments contradict each other.
    """
    if scheduler is not None and scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler={scheduler!r}: allowed are {', '.join(SCHEDULERS)}")
    if scheduler == "default" and scheduler_cls is not None:
        raise ValueError(f"scheduler='default' contradicts scheduler_cls={scheduler_cls!r}")
    config = dict(additional_config)
    if settings or scheduler == "sarathi":
        carried = SarathiConfig.require_mapping(config.get(SETTINGS_KEY, {}))
        config[SETTINGS_KEY] = {**carried, **settings}
    if scheduler == "sarathi" and scheduler_cls is None:
        scheduler_cls = "sarathi"
    ours = is_ours(scheduler_cls, config.get(SETTINGS_KEY))
    if scheduler == "sarathi" and not ours:
        raise ValueError(f"scheduler='sarathi' contradicts scheduler_cls={scheduler_cls!r}")
    if settings and not ours:
        raise ValueError(_needs_scheduler(settings))
    if ours:
        SarathiConfig.from_mapping(config.get(SETTINGS_KEY, {}))
    return {"scheduler_cls": scheduler_cls, "additional_config": config}


def _is_sync(scheduler_cls: str | type) -> bool:
    """Whether a class works with ``async_scheduling=False`` alone; the alias works with both."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    if scheduler_cls == "sarathi":
        return False
    found = resolved(scheduler_cls) if isinstance(scheduler_cls, str) else scheduler_cls
    return not issubclass(found, AsyncScheduler)


def _needs_scheduler(settings: Any) -> str:
    return f"sarathi settings {settings!r} need scheduler='sarathi' or scheduler_cls='sarathi'"


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
            flag = "--sarathi-" + name.replace("_", "-")
            group.add_argument(
                flag,
                type=_json_or_word,
                default=argparse.SUPPRESS,  # tells "null" from a flag that is absent
                help=SarathiConfig.doc(name),
            )
        return parser

    return wrapper


def _json_or_word(text: str) -> Any:
    """Read a flag's value: JSON where it is any, else a word such as ``auto``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        return SarathiConfig.require_mapping(json.loads(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _with_flag_values(from_cli_args: Any) -> Any:
    @functools.wraps(from_cli_args)
    def wrapper(cls: Any, args: argparse.Namespace) -> Any:
        settings = dict(getattr(args, "sarathi_config", None) or {})
        for name in SarathiConfig.model_fields:
            if hasattr(args, f"sarathi_{name}"):
                settings[name] = getattr(args, f"sarathi_{name}")
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
        settings = (self.additional_config or {}).get(SETTINGS_KEY)
        if self.scheduler_cls is None and settings:
            raise ValueError(_needs_scheduler(settings))
        if not is_ours(self.scheduler_cls, settings):
            return create_engine_config(self, *args, **kwargs)
        import vllm

        check_vllm_version(vllm.__version__)
        SarathiConfig.from_mapping({} if settings is None else settings)
        if _is_sync(self.scheduler_cls) and self.async_scheduling is None:
            self.async_scheduling = False
        config = create_engine_config(self, *args, **kwargs)
        _activate(config)
        return config

    return wrapper


def _activate(config: Any) -> None:
    """Settle what only the finished configuration tells: the class, the limits, the front end."""
    from vllm_sarathi.front_end import request_checks
    from vllm_sarathi.metrics.exporter import share_with_engines

    scheduler = config.scheduler_config
    if scheduler.scheduler_cls == "sarathi":
        scheduler.scheduler_cls = _ASYNC_CLASS if scheduler.async_scheduling else _SYNC_CLASS
    scheduler.get_scheduler_cls()  # a class that does not exist is told before anything loads
    settings = SarathiConfig.of_engine(config)
    settings.check_limits(
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        enable_chunked_prefill=scheduler.enable_chunked_prefill,
        is_encoder_decoder=config.model_config.is_encoder_decoder,
    )
    share_with_engines()
    request_checks.install()
    if settings.shed:
        from vllm_sarathi.front_end import refusals

        refusals.install()
