"""Use cases of exported models: export, apply, evaluate, verify, register and measure them."""
