from vllm_sarathi.policy.decode_pause import DecodePause


def test_tokens_are_late_by_the_gap_that_their_own_decodes_had() -> None:
    pause = DecodePause().after(3, 0.030).after(3, 0.030)
    assert pause == DecodePause(3, 0.060)
    assert [pause.num_late(5, gap_s, 0.1) for gap_s in (0.03, 0.05, 0.2)] == [0, 3, 5]
    assert pause.num_late(2, 0.05, 0.1) == 2
    assert pause.after(0, 0.010) == DecodePause()
