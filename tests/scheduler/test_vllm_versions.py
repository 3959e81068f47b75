import pytest

from vllm_sarathi.scheduler.vllm_versions import check_vllm_version


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0+cpu", "0.33.1.dev5"])
def test_a_supported_version_passes(version: str) -> None:
    check_vllm_version(version)


@pytest.mark.parametrize("version", ["0.25.1", "0.34.0", "1.0.0"])
def test_an_unsupported_version_is_named_with_those_supported(version: str) -> None:
    with pytest.raises(RuntimeError, match=rf"supports vllm .*0\.26.*vllm {version}"):
        check_vllm_version(version)
