"""Everything that is derived once, before READY, from a circuit or a detector error model.

`experiment` reads it, `rounds` cuts it into rounds, `folding` turns measurements into detection events, `model` cuts
the error model into windows, `schedule` says which window comes when, `compile` puts a frozen `Plan` together.
"""

from rtqec.plan.compile import Plan, compile_plan, compile_plans

__all__ = ["Plan", "compile_plan", "compile_plans"]
