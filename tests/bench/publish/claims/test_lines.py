"""The lines that claims become."""

from bench.publish.claims.lines import all_claims


def test_every_claim_fits_over_its_panel_of_the_plot():
    """One line of the forest plot's width: a longer one would squeeze all panels."""
    for claim in all_claims():
        for measure in claim.measures:
            assert len(f"{claim.statement}: {measure.name} ({measure.unit})") <= 112
