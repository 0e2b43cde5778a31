"""The page "Custom Scalars" of TensorBoard: ρ by action, β, KL and the influence of ρ side by side."""

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

#: The title of the chart of ρ by action, which models log only for a marginal ρ of at most 32 actions
PRIOR = "ρ(a), the action prior"
#: Charts by title, with regular expressions of what they show
CHARTS = {
    PRIOR: ["prior/.*"],
    "β (1/reward)": ["train/beta"],
    "KL(π‖ρ) and entropy of ρ (nats)": ["train/kl", "rollout/prior_entropy", "rollout/skill_entropy"],
    "share of states in which ρ changes the choice (PriorInfluenceCallback)": ["train/prior_influence"],
    "gap of β Q against range of log ρ (PriorInfluenceCallback)": ["train/value_gap", "train/prior_range"],
}


def write_layout(logger: Logger, has_prior: bool) -> None:
    """
    Tell TensorBoard which charts belong together. Nothing is done if the logger does not write for TensorBoard.

    :param logger: of a model
    :param has_prior: whether the model logs ρ by action
    """
    charts = {title: ["Multiline", tags] for title, tags in CHARTS.items() if has_prior or title != PRIOR}
    for output in logger.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            output.writer.add_custom_scalars({"MIRL": charts})
