"""``python -m vllm_sarathi.cli``."""

import sys

from vllm_sarathi.cli.main import main

sys.exit(main())
