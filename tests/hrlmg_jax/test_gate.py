"""The generator's gate through its command line."""

from command_lines import assert_one_message

GATE = "hrlmg_jax.gate"
SMALL = ["data.size=tiny", "sessions=24", "sessions_at_a_time=24", "env.episode_length=60"]


def test_the_gate_prints_every_check_and_fails_without_planning(run_command_line):
    finished = run_command_line(GATE, *SMALL, "agent.trust_weight=0")
    assert finished.returncode == 1, finished.stderr
    lines = finished.stdout.splitlines()
    assert [line.split(":")[0].split("  ")[1] for line in lines] == [
        "click rate",
        "order rate",
        "planner / greedy oracle",
        "clicks left by the best items for orders",
        "orders left by the best items for clicks",
    ]
    assert "FAIL  planner / greedy oracle: 1 (>= 1.3)" in finished.stdout  # a planner that does not plan
    assert all(line.startswith("pass") for line in lines[:2])


def test_mistakes_get_one_message(run_command_line):
    assert_one_message(run_command_line(GATE, *SMALL, "env.episode_length=300"), "env.episode_length")
    assert_one_message(run_command_line(GATE, *SMALL, "data.size=huge"), "data.size")
