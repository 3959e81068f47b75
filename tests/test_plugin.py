"""The ways in, up to the engine's finished configuration."""

import argparse
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.entrypoints.cli.main import main
from vllm.plugins import load_plugins_by_group
from vllm.utils.argparse_utils import FlexibleArgumentParser

from tests.support.scheduler_loop import model_folder
from vllm_sarathi import LLM, AsyncSarathiScheduler, SarathiScheduler, llm, plugin
from vllm_sarathi.scheduler_choice import with_scheduler


class OwnScheduler(SarathiScheduler):
    """A scheduler that a user derives from ours."""


OWN = f"{__name__}.OwnScheduler"
SHAPE = ["--model", "", "--skip-tokenizer-init", "--max-model-len", "8192"]


def parse(*flags: str) -> Any:
    plugin.register()
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    SHAPE[1] = model_folder()
    return AsyncEngineArgs.from_cli_args(parser.parse_args([*SHAPE, *flags]))


def engine_arguments(**given: Any) -> Any:
    """As ``vllm.LLM`` makes them, by default with our scheduler."""
    plugin.register()
    options = {"skip_tokenizer_init": True, "max_model_len": 8192, "scheduler_cls": "sarathi"}
    return EngineArgs(model=model_folder(), **options | given)


def configuration(*flags: str) -> Any:
    return parse(*flags).create_engine_config()


def test_one_flag_turns_the_scheduler_on() -> None:
    config = configuration("--scheduler", "sarathi")
    assert config.scheduler_config.get_scheduler_cls() is SarathiScheduler


@pytest.mark.parametrize("flags", [(), ("--scheduler", "default")])
def test_unasked_nothing_changes(flags: tuple[str, ...]) -> None:
    arguments = parse(*flags)
    assert arguments.scheduler_cls is None
    assert arguments.additional_config == {}


def test_a_typo_is_refused_by_the_parser_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--scheduler", "sarthi")
    assert "choose from" in (said := capsys.readouterr().err)
    assert "sarathi" in said.split("choose from")[1]
    assert "default" in said.split("choose from")[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[5]", "[5] is not a mapping"),
        ("{", "Expecting property name"),
        ("file.json", "'file.json' is no JSON object"),
        ('{"shed": true, "shed": false}', "'shed' stands there twice, as True and False"),
    ],
)
def test_settings_that_are_no_json_object_are_refused_by_the_parser(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("--scheduler", "sarathi", "--sarathi-config", text)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "ours"),
    [
        (("--scheduler", "sarathi"), 1),
        (("--scheduler-cls", "vllm_sarathi.AsyncSarathiScheduler"), 1),
        (("--scheduler", "default"), 0),
        ((), 0),
    ],
)
def test_the_scheduler_brings_its_middleware_along_once_after_the_users(
    flags: tuple[str, ...], ours: int
) -> None:
    plugin.register()
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    parser.add_argument("--middleware", action="append", default=[])
    args = parser.parse_args(["--model", model_folder(), "--middleware", "user.Own", *flags])
    for _ in range(2):  # the launcher and each API server read the same arguments
        AsyncEngineArgs.from_cli_args(args)
    path = "vllm_sarathi.front_end.middleware.ObjectivesMiddleware"
    assert args.middleware == ["user.Own", *[path] * ours]
    assert parser.get_default("middleware") == []


def test_api_servers_that_get_the_parsed_arguments_need_no_plugin_to_read_them() -> None:
    plugin.register()
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    flags = ["--scheduler", "sarathi", "--sarathi-qos-classes", '{"gold": {"tpot_slo_ms": 25}}']
    args = parser.parse_args(["--model", model_folder(), *flags])
    AsyncEngineArgs.from_cli_args(args)
    unwrapped: Any = AsyncEngineArgs.from_cli_args.__wrapped__  # as in a process just started
    received = unwrapped(AsyncEngineArgs, args)
    assert received.scheduler_cls == "sarathi"
    assert received.additional_config == {"sarathi": {"qos_classes": {"gold": {"tpot_slo_ms": 25}}}}


@pytest.mark.parametrize("name", ["sarathi", "vllm_sarathi.SarathiScheduler"])
def test_vllms_own_flag_takes_the_alias_and_the_dotted_path(name: str) -> None:
    config = configuration("--scheduler-cls", name)
    assert config.scheduler_config.get_scheduler_cls() is SarathiScheduler


def test_a_derived_class_takes_our_settings_and_names_what_is_wrong_with_them() -> None:
    settings = parse("--scheduler-cls", OWN, "--sarathi-tbt-slo-ms", "50").additional_config
    assert settings == {"sarathi": {"tbt_slo_ms": 50}}
    with pytest.raises(ValueError, match="tbt_slo_ms=-1"):
        parse("--scheduler-cls", OWN, "--sarathi-tbt-slo-ms", "-1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json.JSONDecoder", "need scheduler='sarathi'"),
        ("no.such.module", "'no.such.module' cannot be imported: ModuleNotFoundError"),
        ("json.NoClass", "'json.NoClass' cannot be imported: AttributeError"),
        ("not a path.", "cannot be imported"),
    ],
)
def test_a_class_that_is_not_ours_takes_none_of_our_settings(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse("--scheduler-cls", name, "--sarathi-tbt-slo-ms", "50")


def test_a_server_that_does_not_ask_for_us_imports_no_scheduler_while_it_reads_flags() -> None:
    assert parse("--scheduler-cls", "no.such.module").scheduler_cls == "no.such.module"


def test_asking_for_us_makes_a_derived_class_one_of_ours() -> None:
    arguments = parse("--scheduler", "sarathi", "--scheduler-cls", OWN)
    assert arguments.additional_config == {"sarathi": {}}
    config = arguments.create_engine_config()
    assert config.scheduler_config.async_scheduling is False
    assert config.scheduler_config.get_scheduler_cls().__name__ == "OwnScheduler"


def test_the_asynchronous_class_can_be_named() -> None:
    config = configuration("--scheduler-cls", "vllm_sarathi.AsyncSarathiScheduler")
    assert config.scheduler_config.get_scheduler_cls() is AsyncSarathiScheduler


def test_the_alias_takes_the_class_that_fits_async_scheduling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = parse("--scheduler", "sarathi")
    made = arguments.create_engine_config()
    for asynchronous, expected in ((True, AsyncSarathiScheduler), (False, SarathiScheduler)):
        made.scheduler_config.scheduler_cls = "sarathi"
        made.scheduler_config.async_scheduling = asynchronous
        plugin._activate(made)
        assert made.scheduler_config.get_scheduler_cls() is expected


@pytest.mark.parametrize("cls", ["vllm_sarathi.SarathiScheduler", SarathiScheduler, OWN])
def test_the_synchronous_class_turns_async_scheduling_off(cls: str | type) -> None:
    arguments = engine_arguments(scheduler_cls=cls, additional_config={"sarathi": {}})
    arguments.create_engine_config()
    assert arguments.async_scheduling is False


def test_settings_come_as_flags_and_as_json() -> None:
    flags = ("--sarathi-config", '{"tbt_slo_ms": 100, "tile_size": 64}')
    config = configuration("--scheduler", "sarathi", *flags, "--sarathi-tbt-slo-ms", "100")
    assert config.additional_config["sarathi"] == {"tbt_slo_ms": 100, "tile_size": 64}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--sarathi-config", '{"tbt_slo_ms": 100}', "--sarathi-tbt-slo-ms", "50"),
            "tbt_slo_ms=50 contradicts tbt_slo_ms=100 in --sarathi-config",
        ),
        (
            ("--additional-config", '{"sarathi": {"shed": false}}', "--sarathi-shed"),
            r"shed=True contradicts shed=False in additional_config\['sarathi'\]",
        ),
    ],
)
def test_a_setting_with_two_values_is_refused_with_both(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse("--scheduler", "sarathi", *flags)


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        (("--sarathi-shed",), True),
        (("--sarathi-shed", "true"), True),
        (("--no-sarathi-shed",), False),
        (("--sarathi-shed", "false"), False),
    ],
)
def test_what_is_on_or_off_needs_no_value(flags: tuple[str, ...], value: bool) -> None:
    arguments = parse("--scheduler", "sarathi", *flags)
    assert arguments.additional_config["sarathi"] == {"shed": value}


def test_vllms_configuration_file_switches_on_and_says_null(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    lines = ("scheduler: sarathi", "sarathi-shed: true", "sarathi-tbt-slo-ms: null")
    file.write_text("\n".join(lines))
    arguments = parse("--config", str(file))
    assert arguments.additional_config["sarathi"] == {"shed": True, "tbt_slo_ms": None}


@pytest.mark.skipif(
    Version(version("vllm")) < Version("0.28"), reason="vLLM drops false from such a file"
)
def test_vllms_configuration_file_switches_off(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("scheduler: sarathi\nsarathi-balance-micro-batches: false")
    arguments = parse("--config", str(file))
    assert arguments.additional_config["sarathi"] == {"balance_micro_batches": False}


def test_null_on_the_command_line_is_a_value() -> None:
    arguments = parse("--scheduler", "sarathi", "--sarathi-tbt-slo-ms", "null")
    assert arguments.additional_config["sarathi"] == {"tbt_slo_ms": None}


def test_settings_join_those_of_additional_config() -> None:
    extra = '{"other": 1, "sarathi": {"tile_size": 64}}'
    flags = ("--additional-config", extra, "--sarathi-preset", "stall-free")
    config = configuration("--scheduler", "sarathi", *flags)
    assert config.additional_config["other"] == 1
    assert config.additional_config["sarathi"] == {"tile_size": 64, "preset": "stall-free"}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sarathi-token-budget", "0"), "token_budget=0"),
        (("--sarathi-token-budget", "many"), "token_budget='many'"),
        (("--sarathi-config", '{"budget": 5}'), "'budget' is unknown"),
        (("--sarathi-tile-size", "99999"), "above max_num_batched_tokens"),
        (("--no-enable-chunked-prefill",), "enable_chunked_prefill=False"),
        (("--scheduler-cls", "vllm_sarathi.SarathiSheduler"), "SarathiSheduler"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_loads(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises((ValueError, AttributeError), match=said):
        configuration("--scheduler", "sarathi", *flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sarathi-token-budget", "256"), "need scheduler='sarathi'"),
        (("--scheduler", "default", "--scheduler-cls", "sarathi"), "contradicts"),
        (("--scheduler", "sarathi", "--scheduler-cls", "json.JSONDecoder"), "contradicts"),
        (("--scheduler", "sarathi", "--scheduler-cls", "some.Other"), "cannot be imported"),
    ],
)
def test_contradictions_are_refused(flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(*flags)


def test_settings_for_stock_vllm_are_refused_wherever_they_come_from() -> None:
    with pytest.raises(ValueError, match="need scheduler='sarathi'"):
        configuration("--additional-config", '{"sarathi": {"tbt_slo_ms": 50}}')
    own = parse("--additional-config", '{"sarathi": {}}', "--scheduler-cls", "json.JSONDecoder")
    assert own.additional_config == {"sarathi": {}}


@pytest.mark.parametrize(
    ("carried", "said"),
    [
        ({"tbt_slo_ms": 50}, r"\['tbt_slo_ms'\]=50 .* belong in additional_config\['sarathi'\]"),
        ({"sarathy": {"tbt_slo_ms": 50}}, r"\['sarathy'\].* additional_config\['sarathi'\]"),
        ({"sarathi_config": {"tbt_slo_ms": 50}}, r"belong in additional_config\['sarathi'\]"),
    ],
)
def test_a_setting_beside_its_place_is_refused_with_its_place(
    carried: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        engine_arguments(additional_config=carried).create_engine_config()
    with pytest.raises(ValueError, match=said):
        with_scheduler("sarathi", {}, None, carried)


@pytest.mark.parametrize(
    ("scheduler_cls", "carried"),
    [
        ("sarathi", {"ascend": {"order": 1}, "refresh": True, "strategy": {"shed": 1}}),
        (None, {"tbt_slo_ms": 50}),
        ("vllm.v1.core.sched.scheduler.Scheduler", {"sarathy": {"tbt_slo_ms": 50}}),
    ],
)
def test_what_others_keep_in_additional_config_passes(
    scheduler_cls: str | None, carried: dict[str, Any]
) -> None:
    arguments = engine_arguments(scheduler_cls=scheduler_cls, additional_config=carried)
    assert arguments.create_engine_config().additional_config == carried


@pytest.mark.parametrize("name", ["sarathy", "Sarathi", "sarathi-serve", "default"])
def test_a_typo_of_the_alias_is_refused_before_anything_loads(name: str) -> None:
    said = f"scheduler_cls='{name}': allowed are 'sarathi', the dotted path"
    with pytest.raises(ValueError, match=said):
        engine_arguments(scheduler_cls=name).create_engine_config()
    with pytest.raises(ValueError, match=said):
        parse("--scheduler-cls", name)


def test_other_names_of_schedulers_are_vllms_to_judge() -> None:
    arguments = engine_arguments(scheduler_cls="fifo")
    assert arguments.create_engine_config().scheduler_config.scheduler_cls == "fifo"


def test_a_step_log_that_cannot_be_written_is_refused_before_anything_loads(
    tmp_path: Path,
) -> None:
    for path in (tmp_path, tmp_path / "none" / "steps.jsonl"):
        arguments = engine_arguments(additional_config={"sarathi": {"step_log": str(path)}})
        with pytest.raises(ValueError, match=r"step_log='.*' cannot be written: .* a file in a"):
            arguments.create_engine_config()


def test_a_step_log_that_can_be_written_is_not_made_before_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    engine_arguments(additional_config={"sarathi": {"step_log": str(path)}}).create_engine_config()
    assert not path.exists()


def test_our_llm_takes_no_keyword_that_additional_config_contradicts() -> None:
    carried = {"sarathi": {"tbt_slo_ms": 100}}
    with pytest.raises(ValueError, match="tbt_slo_ms=50 contradicts tbt_slo_ms=100 in additional"):
        LLM(model_folder(), tbt_slo_ms=50, additional_config=carried)


def test_our_llm_needs_no_plugin_that_vllm_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[bool] = []
    monkeypatch.setattr(llm, "register", lambda: registered.append(True))
    with pytest.raises(ValueError, match="scheduler='fifo'"):
        LLM(model_folder(), scheduler="fifo")
    assert registered == [True]


def test_keywords_of_our_llm_become_engine_arguments() -> None:
    chosen = with_scheduler("sarathi", {"tbt_slo_ms": 64}, None, {"other": 1})
    assert chosen["scheduler_cls"] == "sarathi"
    assert chosen["additional_config"] == {"other": 1, "sarathi": {"tbt_slo_ms": 64}}
    with pytest.raises(ValueError, match=r"scheduler='fifo': allowed are default, sarathi"):
        with_scheduler("fifo", {}, None, {})


def test_engine_arguments_take_the_alias_without_the_command_line() -> None:
    arguments = engine_arguments()
    config = arguments.create_engine_config()
    assert config.scheduler_config.get_scheduler_cls() is SarathiScheduler


def test_registering_twice_wraps_once() -> None:
    plugin.register()
    wrapped = EngineArgs.create_engine_config
    plugin.register()
    assert EngineArgs.create_engine_config is wrapped
    assert not hasattr(wrapped.__wrapped__, "__wrapped__")


FRESH_PROCESS = """
import os, sys
import prometheus_client
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser
said = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser()).format_help()
AsyncEngineArgs(
    model=sys.argv[1], skip_tokenizer_init=True, max_model_len=8192
).create_engine_config()
shared = "SARATHI_METRICS_DIR" in os.environ
print("--scheduler " in said, shared, "sarathi" in str(prometheus_client.generate_latest()))
"""


def test_where_nothing_imports_it_vllm_has_our_flag_and_none_of_our_metrics_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SARATHI_METRICS_DIR", "VLLM_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-c", FRESH_PROCESS, model_folder()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True False False"


def test_with_plugins_switched_off_vllm_does_not_load_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "vllm.general_plugins"
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    assert load_plugins_by_group(group)["sarathi"] is plugin.register
    monkeypatch.setenv("VLLM_PLUGINS", "")
    assert "sarathi" not in load_plugins_by_group(group)


def vllm_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """Run vLLM's program in this process; what it exits with."""
    monkeypatch.setattr(sys, "argv", ["vllm", *arguments])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    try:
        main()
    except SystemExit as ended:
        return ended.code
    except ModuleNotFoundError as error:
        if (error.name or "vllm").partition(".")[0] == "vllm":
            raise
        pytest.skip(f"this vLLM's own command needs {error.name}")
    raise AssertionError("it returned")


def test_the_flags_are_in_the_help_of_vllm_serve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vllm_command(monkeypatch, "serve", "--help=Sarathi") in (0, None)
    said = capsys.readouterr().out
    assert "--scheduler" in said
    assert "--sarathi-token-budget" in said


def test_vllm_serve_refuses_a_typo_before_anything_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vllm_command(monkeypatch, "serve", "no-model", "--scheduler", "typo") == 2
    said = capsys.readouterr().err
    assert "sarathi" in said
    assert "default" in said


def test_asking_for_the_scheduler_on_an_unsupported_version_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = parse("--scheduler", "sarathi")
    monkeypatch.setattr("vllm.__version__", "0.99.0")
    with pytest.raises(RuntimeError, match=r"vllm 0\.99\.0 is installed"):
        arguments.create_engine_config()


def test_flags_that_are_absent_leave_a_namespace_of_other_origin_alone() -> None:
    plugin.register()
    arguments = EngineArgs.from_cli_args(argparse.Namespace(model=model_folder()))
    assert arguments.scheduler_cls is None
    assert arguments.additional_config == {}
