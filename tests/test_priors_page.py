"""``docs/priors.md``: each cell of its table names what a test checks."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "priors.md").read_text("utf-8")
KINDS = ["marginal", "mask", "conditional, discrete x", "conditional, continuous x", "skills"]
# Tests of each row of the table, for the marginal, masks, and the kinds that see a view
REGULARIZED = "mirl/test_regularized.py"
TESTS = {
    "`save()` and `load()`": [
        "mirl/test_mirl.py::test_every_policy_learns_saves_and_loads",
        "common/test_masked_dqn.py::test_files_keep_that_there_are_masks",
        *[f"{REGULARIZED}::test_files_hold_the_prior"] * 3,
    ],
    "`export()` and `load_exported()`": [
        "common/export/test_load.py::test_",
        "common/test_masked_dqn.py::test_files_keep_that_there_are_masks",
        *[f"{REGULARIZED}::test_files_hold_the_prior"] * 3,
    ],
    "resuming from checkpoints, bit for bit": [
        "common/resume/test_reader.py::test_",
        "common/resume/test_reader.py::masked",
        *[f"{REGULARIZED}::test_an_interrupted_run_is_resumed_exactly"] * 3,
    ],
    "zoo: files of hyper-parameters": [
        "zoo/test_hyperparams.py::test_",
        "zoo/test_workarounds.py::test_action_masks_in_the_zoo",
        *["zoo/test_hyperparams.py::test_priors_that_see_something_are_settings"] * 3,
    ],
    "zoo: `-optimize`": [
        "zoo/test_manager.py::test_optimize_then_train_the_best_trial",
        "zoo/test_workarounds.py::test_action_masks_in_the_zoo",
        *["zoo/test_manager.py::test_priors_that_see_something_are_kept_while_others_are_optimized"] * 3,
    ],
    "`sb3-mirl prior`, `load_prior`": [
        "cli/test_prior.py::test_",
        "cli/test_prior.py::test_",
        "cli/test_state_prior.py::test_a_table_is_shown_by_x",
        "cli/test_state_prior.py::test_a_network_has_no_table",
        "cli/test_state_prior.py::test_skills_are_shown_by_level",
    ],
    "ONNX": [
        "common/export/test_onnx.py::test_onnx_acts_as_the_policy",
        "common/export/test_onnx.py::test_masks_are_an_input",
        *["common/export/test_onnx.py::test_onnx_holds_a_prior_that_sees_something"] * 3,
    ],
    "`compile_update`": [
        "common/test_gradient.py::test_",
        "common/test_masked_dqn.py::test_compiled_gradient_step_uses_masks",
        *[f"{REGULARIZED}::test_compiled_gradient_steps"] * 3,
    ],
    "`PriorInfluenceCallback`": [
        "mirl/test_callbacks.py::test_prior_influence",
        "common/test_masked_dqn.py::test_what_has_no_masks_says_so",
        *[f"{REGULARIZED}::test_the_influence_of_the_prior_is_that_of_a_marginal"] * 3,
    ],
    "joint training": [
        "joint/test_training.py::test_",
        "joint/test_compatibility.py::test_action_masks_are_refused",
        *["joint/test_compatibility.py::test_priors_that_see_something_are_refused"] * 3,
    ],
    "action masks": [
        "common/test_masked_dqn.py::test_exactly_the_valid_actions_are_tried",
        "",
        f"{REGULARIZED}::test_tables_and_action_masks_work_together",
        f"{REGULARIZED}::test_networks_and_action_masks_are_refused",
        f"{REGULARIZED}::test_tables_and_action_masks_work_together",
    ],
}


def test_each_cell_of_the_table_has_a_test():
    table = PAGE.split("## What works with what")[1]
    rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in table.splitlines() if line.startswith("|")]
    assert rows[0] == KINDS or rows[0][-5:] == KINDS
    assert [row[0] for row in rows[2:]] == list(TESTS)
    for row in rows[2:]:
        assert len(row) == 6
        for cell, test in zip(row[1:], TESTS[row[0]], strict=True):
            assert (cell == "–") == (test == "")
            if test:
                file, name = test.split("::")
                assert f"def {name}" in (ROOT / "tests" / file).read_text("utf-8"), test
