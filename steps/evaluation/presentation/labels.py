"""What tables, plots and sentences call the candidates."""

from steps.evaluation.report import CandidateReport, Report


def label(candidate: CandidateReport) -> str:
    """How a candidate is called in pictures and columns."""
    name = {"transformers": "transformers", "onnx": "ONNX"}.get(
        candidate.variant, candidate.variant
    )
    return f"{name} (incumbent)" if candidate.role == "incumbent" else name


def labels(report: Report) -> list[str]:
    """One label a candidate; where two would be the same, the end of the model id tells them
    apart.
    """
    plain = [label(candidate) for candidate in report.candidates]
    return [
        (
            f"{name} {candidate.model_id[-6:]}"
            if plain.count(name) > 1 and candidate.model_id
            else name
        )
        for name, candidate in zip(plain, report.candidates, strict=True)
    ]
