"""The sections of the page that compare algorithms."""

from bench_reports import page_of


def test_groups_of_environments_have_sections(useless):
    page = page_of(useless / "report")
    for caption in ("Claims", "Aggregates: relative scores"):
        assert {f"{caption}{group}" for group in ("", ", no useless action", ", 15 useless actions")} <= set(page.tables)
    header, *rows = page.tables["Claims, 15 useless actions"]
    assert header[3:5] == ["adjusted p", "detectable with 80% power"] and rows[0][4].startswith("≥ 0.")
    assert rows[0][6:] == ["holds", "Useless15/CartPole-v1, Useless15/Acrobot-v1", "–", "–"]
    header, *rows = page.tables["IQM over 2 environments by the number of useless actions, relative scores"]
    assert header == ["algorithm", "0", "15"] and [row[0] for row in rows] == ["DQN", "SQL", "MIRL"]


def test_figures_are_described(useless):
    described = [attrs["alt"] for tag, attrs in page_of(useless / "report").elements if tag == "img"]
    assert described[0].endswith("With 15 useless actions: DQN 0.035, SQL 0.27, MIRL 0.97.")
    assert described[1].endswith("With 15 useless actions: SQL 1.00, DQN 1.00.")
    assert "IQM: DQN 0.035, SQL 0.27, MIRL 0.62." in described[2]
    assert described[3].endswith("Above 0.50: DQN 0.00, SQL 0.00, MIRL 0.50.")


def test_suite_without_groups_has_none(classic):
    page = page_of(classic / "report")
    assert "useless" not in page.text and "optimality gap" not in page.text
    assert len([caption for caption in page.tables if caption.startswith("Claims")]) == 1


def test_human_scores_have_an_optimality_gap(atari):
    page = page_of(atari / "out")
    captions = [caption for caption in page.tables if caption.startswith("Aggregates: percent of a human's score")]
    assert [page.tables[caption][0][4] for caption in captions] == ["optimality gap"] * 2
