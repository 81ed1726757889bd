"""What is measured: one module a scenario, each with `run(*, quick) -> list[Row]`, its rivals and its targets."""
