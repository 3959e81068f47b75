"""How far the runs of a command are, as its user sees it."""

import sys
from collections.abc import Sequence
from time import perf_counter
from typing import TextIO

from tqdm import tqdm

from vllm_sarathi.cli.tasks import Progress

# Where there is no terminal: seconds between two lines.
LINE_EVERY_S = 30.0


class Watch:
    """A bar on a terminal, else a line every so often.

    Args:
        names: what to call the runs.
        stream: where to show them; None is stderr.
    """

    def __init__(self, names: Sequence[str], stream: TextIO | None = None) -> None:
        self.names = names
        self._stream = sys.stderr if stream is None else stream
        self._shares = [0.0] * len(names)
        self._num_done = 0
        # Real time: the clocks that a simulation moves are not asked.
        self._started_s = self._shown_s = perf_counter()
        layout = "{l_bar}{bar}| {elapsed}{postfix}"
        self._bar = tqdm(total=len(names), disable=None, file=self._stream, bar_format=layout)

    def told(self, index: int, progress: Progress) -> None:
        """A run is as far as this."""
        self._shares[index] = progress.share
        self._show(f"{self.names[index]}: {progress.text}")

    def done(self, index: int) -> None:
        """A run is over."""
        self._num_done += 1
        self._shares[index] = 1.0
        self._show(f"{self.names[index]}: done")

    def say(self, text: str) -> None:
        """Write a line beside the bar."""
        self._bar.write(text, file=self._stream)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _show(self, text: str) -> None:
        runs = f"{self._num_done} of {len(self.names)} done; " if len(self.names) > 1 else ""
        if not self._bar.disable:
            self._bar.set_postfix_str(runs + text, refresh=False)
            self._bar.update(sum(self._shares) - self._bar.n)
            return
        now_s = perf_counter()
        if now_s - self._shown_s >= LINE_EVERY_S:
            self._shown_s = now_s
            minutes = (now_s - self._started_s) / 60
            self._stream.write(f"{runs}{text}; {minutes:.1f} min so far\n")
            self._stream.flush()
