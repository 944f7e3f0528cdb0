"""A plan as a decoder of CUDA-Q: its error model, and its fold programs as one matrix."""

from __future__ import annotations

from rtqec.cudaq.decoder import CudaqDecoder
from rtqec.errors import PlanError
from rtqec.plan import Plan


def decoder_of_plan(plan: Plan) -> CudaqDecoder:
    """The decoder that does what a finite plan does.

    Raises:
        PlanError: The plan is endless, has no measurements, or folds them with sweep bits or constants.
    """
    if plan.endless:
        raise PlanError(
            "[plan] rounds", 'is "endless"; a decoder of CUDA-Q has a number of rounds.',
            "H and D describe one shot.", "Set it, for example --set plan.rounds=20.",
        )  # fmt: skip
    sets: list[set[int]] = [set() for _ in plan.rounds.detector_round]
    numbers = {place: number for number, place in enumerate(
        zip(plan.rounds.detector_round.tolist(), plan.rounds.detector_slot.tolist(), strict=True))}  # fmt: skip
    starts = plan.rounds.block_starts.tolist()
    for t in range(plan.rounds.num_rounds):
        program = plan.layer(t, t == plan.rounds.num_rounds - 1).program
        if program is None:
            raise PlanError(
                "[plan] dem", "is given without a circuit.", "D says which measurements make a detector; a DEM does "
                "not.", "Name the circuit as well, or a decoder file: [plan] cudaq.",
            )  # fmt: skip
        if program.constants.any() or len(program.sweeps):
            raise PlanError(
                "[plan] circuit", f"has detectors in round {t} that are 1 where all measurements are 0, or that depend "
                "on sweep bits.", "D of CUDA-Q is linear: there is no place for either.",
                "Prepare and measure such that noiseless shots without sweep bits have no detection events.",
            )  # fmt: skip
        for slot, back, place in program.sources.tolist():
            sets[numbers[t, slot]] ^= {starts[t - back] + place}
    return CudaqDecoder(
        plan.experiment.dem,
        tuple(tuple(sorted(found)) for found in sets),
        plan.num_observables,
        tuple(plan.rounds.detector_round.tolist()),
        tuple(plan.rounds.block_widths.tolist()),
    )
