"""The tree of a Job's Runs."""

from expert_runner.contract.checkpoints import BranchedFrom, DelegatedBy, ExpertRef
from orchestrator.logs.tree import tree
from orchestrator.store.layout import RunRecord


def run(run_id: str, caller: str | None = None, *, branch_of: str | None = None) -> RunRecord:
    delegated_by = None
    if caller is not None:
        expert = ExpertRef(key="boss", name="boss", version="1.0.0")
        delegated_by = DelegatedBy(expert=expert, run_id=caller, checkpoint_id="c", tool_call_id="t", tool_name="x")
    branched_from = BranchedFrom(run_id=branch_of, checkpoint_id="c") if branch_of is not None else None
    return RunRecord(
        id=run_id,
        job_id="j",
        expert_key="e",
        query="q",
        delegated_by=delegated_by,
        branched_from=branched_from,
        created_at=1,
    )


def shown(*records: RunRecord, order: str = "") -> list[str]:
    """Each Run indented by its depth; `order` is that of the calls."""
    nodes = tree({r.id: r for r in records}, lambda record: (0, order.find(record.id)))
    return ["-" * node.depth + node.record.id for node in nodes]


def test_delegates_stand_below_their_caller_in_call_order() -> None:
    runs = [run("b"), run("y", "b"), run("x", "b"), run("l", "x"), run("m", "y")]
    assert shown(*runs, order="xy") == ["b", "-x", "--l", "-y", "--m"]
    assert shown(*runs, order="yx") == ["b", "-y", "--m", "-x", "--l"]


def test_branches_stand_beside_the_first_each_with_its_own_delegates() -> None:
    runs = [run("b"), run("x", "b"), run("c", branch_of="b"), run("y", "c")]
    assert shown(*runs) == ["b", "-x", "c", "-y"]


def test_a_run_whose_caller_is_missing_is_not_left_out() -> None:
    assert shown(run("x", "gone"), run("y", "x"), run("b")) == ["b", "x", "-y"]
    assert shown(run("y", "x"), run("x", "gone")) == ["x", "-y"]


def test_runs_that_call_each_other_in_a_circle_are_not_left_out() -> None:
    assert shown(run("b"), run("x", "y"), run("y", "x")) == ["b", "x", "-y"]
    assert shown(run("x", "x")) == ["x"]


def test_a_very_deep_tree_is_no_problem() -> None:
    runs = [run("r0"), *(run(f"r{n}", f"r{n - 1}") for n in range(1, 5_000))]
    assert shown(*runs)[-1] == "-" * 4_999 + "r4999"


def test_no_runs_are_no_tree() -> None:
    assert shown() == []
