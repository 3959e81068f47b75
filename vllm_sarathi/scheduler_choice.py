"""Which scheduler is asked for, and the settings that come with it, wherever they stand."""

import pkgutil
from collections.abc import Mapping
from typing import Any

from vllm_sarathi.config import SETTINGS_KEY, SarathiConfig
from vllm_sarathi.config_errors import closest

ALIAS = "sarathi"
SCHEDULERS = ("default", ALIAS)
_PLACE = f"additional_config[{SETTINGS_KEY!r}]"


def with_scheduler(
    scheduler: str | None,
    settings: Mapping[str, Any],
    scheduler_cls: str | type | None,
    additional_config: Mapping[str, Any],
) -> dict[str, Any]:
    """Engine arguments that choose a scheduler and carry its settings.

    Args:
        scheduler: one of ``SCHEDULERS``; None leaves the choice to ``scheduler_cls``.
        settings: settings of ``SarathiConfig``; they join those that
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
    refuse_typo(scheduler_cls)
    config = dict(additional_config)
    if settings or scheduler == ALIAS:
        carried = SarathiConfig.require_mapping(config.get(SETTINGS_KEY, {}))
        config[SETTINGS_KEY] = joined(settings, carried, _PLACE)
    if scheduler == ALIAS and scheduler_cls is None:
        scheduler_cls = ALIAS
    ours = is_ours(scheduler_cls, config.get(SETTINGS_KEY))
    if scheduler == ALIAS and not ours:
        raise ValueError(f"scheduler={ALIAS!r} contradicts scheduler_cls={scheduler_cls!r}")
    if settings and not ours:
        raise ValueError(needs_scheduler(settings))
    if ours:
        settings_in(config)
    return {"scheduler_cls": scheduler_cls, "additional_config": config}


def joined(settings: Mapping[str, Any], others: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Settings of two places together.

    Args:
        settings: of one place.
        others: of the other.
        place: what the other is called.

    Raises:
        ValueError: they name different values for a setting.
    """
    for name, value in settings.items():
        if name in others and others[name] != value:
            raise ValueError(
                f"sarathi setting {name}={value!r} contradicts {name}={others[name]!r} in "
                f"{place}; give it once"
            )
    return {**others, **settings}


def settings_in(additional_config: Mapping[str, Any]) -> SarathiConfig:
    """The settings that vLLM's ``additional_config`` carries for a scheduler of ours.

    Raises:
        ValueError: one is wrong, or stands beside ``"sarathi"`` where it is ignored.
    """
    for name, value in additional_config.items():
        if name in SarathiConfig.model_fields:
            raise ValueError(
                f"additional_config[{name!r}]={value!r} is ignored; sarathi settings belong "
                f"in {_PLACE}: {{{SETTINGS_KEY!r}: {{{name!r}: {value!r}}}}}"
            )
        if (
            name != SETTINGS_KEY
            and isinstance(value, Mapping)
            and closest(name, [SETTINGS_KEY])
            and SarathiConfig.model_fields.keys() & value
        ):
            raise ValueError(
                f"additional_config[{name!r}]={value!r} is ignored; sarathi settings belong "
                f"in {_PLACE}"
            )
    settings = additional_config.get(SETTINGS_KEY)
    return SarathiConfig.from_mapping({} if settings is None else settings)


def needs_scheduler(settings: Any) -> str:
    """That settings of ours go with a scheduler of ours."""
    return f"sarathi settings {settings!r} need scheduler='sarathi' or scheduler_cls='sarathi'"


def refuse_typo(scheduler_cls: str | type | None) -> None:
    """Refuse a name without a dot that is nearly the alias; vLLM would find out much later.

    Raises:
        ValueError: names the value and what is allowed.
    """
    if not isinstance(scheduler_cls, str) or scheduler_cls == ALIAS or "." in scheduler_cls:
        return
    if scheduler_cls and closest(scheduler_cls, SCHEDULERS):
        raise ValueError(
            f"scheduler_cls={scheduler_cls!r}: allowed are {ALIAS!r}, the dotted path of a class "
            "such as 'vllm_sarathi.SarathiScheduler', and None for vLLM's own scheduler"
        )


def is_ours(scheduler_cls: str | type | None, settings: Any = None) -> bool:
    """Whether a ``scheduler_cls`` argument names a scheduler of this package, or one derived.

    A dotted path outside of the package is imported only where there are settings of ours: a
    server that does not ask for us imports no more than vLLM does.

    Raises:
        ValueError: there are settings, and the path cannot be imported.
    """
    if isinstance(scheduler_cls, str):
        if scheduler_cls == ALIAS or scheduler_cls.startswith("vllm_sarathi."):
            return True
        if settings is None:
            return False
        scheduler_cls = resolved(scheduler_cls)
    bases = scheduler_cls.__mro__ if isinstance(scheduler_cls, type) else ()
    return any(base.__module__.startswith("vllm_sarathi.") for base in bases)


def resolved(path: str) -> Any:
    """What a dotted path names.

    Raises:
        ValueError: it cannot be imported, whatever the reason.
    """
    try:
        return pkgutil.resolve_name(path)
    except Exception as error:
        raise ValueError(f"scheduler_cls={path!r} cannot be imported: {error!r}") from error
