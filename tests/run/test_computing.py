"""Which stages a run's own process computes, and which its workers do."""

from support.kinds import kind

from collapse_cli.engine.scheduler import width
from collapse_cli.engine.stage import Plan, Stage
from collapse_cli.run.computing import apart
from collapse_cli.where import Where


def plan_of(policies: int) -> Plan:
    """Of one seed: generation 0 and 1, each trained, scored and sampled from."""
    plan, data = Plan(), Stage(kind("data"), {})
    first = Stage(kind("train"), {}, {"data": data})
    started = [data, first, Stage(kind("eval"), {}, {"of": first}), Stage(kind("sample"), {}, {"of": first})]
    for policy in range(policies):
        for stage in started:
            plan.add(stage, Where(f"p{policy}", 0, 0))
        next_one = Stage(kind("train"), {"policy": policy}, {"data": started[-1]})
        for stage in (next_one, Stage(kind("eval"), {"policy": policy}, {"of": next_one})):
            plan.add(stage, Where(f"p{policy}", 0, 1))
    return plan


def names(stages: list[Stage]) -> list[str]:
    return [stage.work for stage in stages]


def test_what_all_policies_wait_for_is_computed_here_and_the_rest_by_workers() -> None:
    plan = plan_of(policies=2)
    alone, others = apart(list(plan.stages.values()), width(plan))
    assert names(alone) == ["data", "train", "eval", "sample"]
    assert names(others) == ["train", "eval", "train", "eval"]


def test_workers_have_something_to_do_in_a_run_of_one_policy_too() -> None:
    """Its models are scored while the next is sampled from or trained: `--jobs 2` computed all in one process."""
    plan = plan_of(policies=1)
    alone, others = apart(list(plan.stages.values()), width(plan))
    assert names(alone) == ["data", "train"]
    assert names(others) == ["eval", "sample", "train", "eval"]
