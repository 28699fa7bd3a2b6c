import jax
from quick_compilation import compiled

from harness.compute.quick_compilation import quick_compilation

LESS = {"xla_backend_optimization_level": 1}


def test_the_option_is_known_and_computes_the_same():
    with compiled(optimised=True):
        assert quick_compilation() == LESS
        assert jax.jit(lambda number: 2 * number, compiler_options=quick_compilation())(3) == 6


def test_what_the_user_has_chosen_stays(monkeypatch):
    with compiled(optimised=False):
        assert quick_compilation() == {}
    with compiled(optimised=True):
        monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
        assert quick_compilation() == {}


def test_accelerators_are_left_alone(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with compiled(optimised=True):
        assert quick_compilation() == {}
