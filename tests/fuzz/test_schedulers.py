"""Any traffic over any engine: nothing is lost, nothing stands still.

A few examples run with all tests; ``make fuzz`` runs thousands.
"""

import sys
from importlib.metadata import version
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from packaging.version import Version
from vllm.lora.request import LoRARequest
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import RequestStatus

from tests.support.any_engine import MAX_MODEL_LEN, EngineChoice, engines
from tests.support.asked import Asked, Turn
from tests.support.checked_engine import CheckedEngine
from vllm_sarathi.scheduler.vllm_versions import second_waiting_queue

OBJECTIVES = (
    None,
    {"ttft_slo_ms": 50},
    {"ttft_slo_ms": 5000},
    {"ttft_slo_ms": 400, "tpot_slo_ms": 12},
    {"e2e_slo_ms": 700},
    {"qos": "interactive"},
    {"qos": "batch"},
    {"qos": "gold"},
    {"qos": "iron", "ttft_slo_ms": 1000},
    {"importance": 3, "ttft_slo_ms": 200},
)
HAS_SOUND_SESSIONS = Version(version("vllm")) >= Version("0.31")
"""Before, vLLM goes on with the limit on tokens, and the tokens in flight, of the turn before."""

STOPS = (frozenset[int](), frozenset(range(0, 1000, 12)))

prompts = st.sampled_from([1, 15, 16, 17, 40, 64, 100, 200, 300, 440])
lengths = st.sampled_from([1, 2, 3, 8, 20, 40, 60, 100])
places = st.integers(0, 31)
requests = st.fixed_dictionaries(
    {
        "num_prompt": prompts,
        "max_tokens": lengths,
        "stops_early": st.booleans(),
        "objectives": st.sampled_from(OBJECTIVES),
        "priority": st.integers(-1, 1),
        "is_shared": st.booleans(),
        "has_grammar": st.sampled_from([False, False, False, True]),
        "num_alike": st.sampled_from([1, 2, 5, 12]),
    }
)


class Traffic(RuleBasedStateMachine):
    """Clients of an engine, and what may befall it."""

    @initialize(choice=engines, first=st.lists(requests, max_size=4))
    def start(self, choice: EngineChoice, first: list[dict[str, Any]]) -> None:
        self.engine = CheckedEngine(choice)
        self.scheduler = self.engine.scheduler
        for wanted in first:
            self._add(**wanted)

    @rule(wanted=requests, num_steps=st.sampled_from([0, 0, 1, 5, 20]))
    def add(self, wanted: dict[str, Any], num_steps: int) -> None:
        """Requests come, and some steps go by: in one rule, for Hypothesis leaves some out."""
        self._add(**wanted)
        self.step(num_steps, True)

    def _add(
        self,
        num_prompt: int,
        max_tokens: int,
        stops_early: bool,
        objectives: dict[str, Any] | None,
        priority: int,
        is_shared: bool,
        has_grammar: bool,
        num_alike: int,
    ) -> None:
        """Requests come, alike but for their prompts; some wait for their grammar first."""
        grammar = StructuredOutputsParams(regex=".*") if has_grammar else None
        for _ in range(num_alike):
            number = len(self.engine.asked)
            adapter = number % 3 if self.engine.choice.runs_adapters else 0
            self.engine.ask(
                Turn(
                    _prompt(0 if is_shared else number, num_prompt), max_tokens, STOPS[stops_early]
                ),
                sampling={"structured_outputs": grammar},
                extra_args=objectives,
                priority=priority,
                lora_request=LoRARequest(f"a{adapter}", adapter, "/a") if adapter else None,
            )

    @precondition(lambda self: HAS_SOUND_SESSIONS)
    @rule(num_prompt=st.integers(1, 60), max_tokens=lengths, stops_early=st.booleans())
    def open_session(self, num_prompt: int, max_tokens: int, stops_early: bool) -> None:
        prompt = _prompt(len(self.engine.asked), num_prompt)
        self.engine.ask(Turn(prompt, max_tokens, STOPS[stops_early]), is_session=True)

    @rule(place=places, num_prompt=st.integers(1, 60), max_tokens=lengths)
    def go_on_with_session(self, place: int, num_prompt: int, max_tokens: int) -> None:
        asked = _chosen(self.engine.sessions, place)
        if asked and asked.num_known + num_prompt + max_tokens <= MAX_MODEL_LEN:
            turn = Turn(_prompt(place, num_prompt), max_tokens)
            self.engine.ask(turn, asked.name, is_session=True)

    @rule(place=places)
    def close_session(self, place: int) -> None:
        if asked := _chosen(self.engine.sessions, place):
            self.engine.close(asked)

    @precondition(lambda self: self.engine.without_grammar)
    @rule(place=places, fails=st.booleans())
    def compile_grammar(self, place: int, fails: bool) -> None:
        names = sorted(self.engine.without_grammar)
        error = ValueError("no grammar") if fails else None
        self.engine.compile(names[place % len(names)], error)

    @rule(place=places)
    def abort(self, place: int) -> None:
        """A client goes away, whatever state its request is in."""
        if asked := _chosen(self.engine.alive, place):
            self.engine.cut_off(asked, RequestStatus.FINISHED_ABORTED)

    @rule(state=st.sampled_from(list(PauseState)))
    def pause(self, state: PauseState) -> None:
        self.scheduler.set_pause_state(state)

    @rule(with_running=st.booleans())
    def reset_prefix_cache(self, with_running: bool) -> None:
        # With blocks held by sessions that wait, vLLM raises an error.
        with_running = with_running and not second_waiting_queue(self.scheduler)
        self.scheduler.reset_prefix_cache(reset_running_requests=with_running)

    @rule(seconds=st.sampled_from([0.02, 0.3, 3.0, 60.0]))
    def wait(self, seconds: float) -> None:
        """Time passes: the machine stalls, or nobody asks anything."""
        self.engine.clock.now_s += seconds

    @rule(throttles=st.booleans())
    def schedule(self, throttles: bool) -> None:
        """One batch more is in flight."""
        if self.engine.can_schedule:
            # Of prefill that it throttles vLLM forgets the adapters, and fails.
            self.engine.schedule(throttles and not self.engine.choice.runs_adapters)

    @rule()
    def answer(self) -> None:
        """The oldest batch in flight comes back."""
        self.engine.answer()

    @rule(num=st.sampled_from([1, 5, 20, 60]), resumes=st.sampled_from([True, True, False]))
    def step(self, num: int, resumes: bool) -> None:
        """The engine core's loop goes round so many times."""
        if resumes:
            self.scheduler.set_pause_state(PauseState.UNPAUSED)
        for _ in range(num):
            self.engine.step()

    @invariant()
    def nobody_is_lost(self) -> None:
        self.engine.check()

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        with self.engine.stack:
            if sys.exc_info()[0] is None:
                self.engine.end()


def _prompt(seed: int, num_tokens: int) -> list[int]:
    return [(97 * seed + 7 * i) % 1000 for i in range(num_tokens)]


def _chosen(among: list[Asked], place: int) -> Asked | None:
    return among[place % len(among)] if among else None


TestTraffic = Traffic.TestCase
if settings.get_current_profile_name() != "fuzz":
    TestTraffic.settings = settings(max_examples=60, suppress_health_check=list(HealthCheck))
