"""Ctrl-C and SIGTERM: finish the step, save, and stop then."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignal:
    """Records that the process was asked to stop. A second signal stops it at once.

    Signals reach the main thread only. In any other thread nothing is caught.

    Attributes:
        name: "SIGINT" or "SIGTERM" after the signal, before it `None`.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.name: str | None = None
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._asked) for each in self.SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked worker that reads data: it continues until the process that trains has saved
        if self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        # print may not be called while another print is under way
        os.write(2, f"\n{self.name}: saving after this step. Once more stops at once, without saving.\n".encode())
