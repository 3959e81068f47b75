"""The vLLM versions that the scheduler is tested with."""

from packaging.specifiers import SpecifierSet

SUPPORTED_VLLM = SpecifierSet(">=0.26,<0.34")


def check_vllm_version(version: str) -> None:
    """Refuse a vLLM whose scheduler may differ from those tested.

    Raises:
        RuntimeError: names the version found and those supported.
    """
    if not SUPPORTED_VLLM.contains(version, prereleases=True):
        raise RuntimeError(
            f"vllm-sarathi supports vllm {SUPPORTED_VLLM}, but vllm {version} is installed; "
            "install a supported pair, or serve with --scheduler default"
        )
