"""Reading one number off a page of Prometheus metrics."""

from prometheus_client.parser import text_string_to_metric_families


def value_of(page: str, name: str, **labels: str) -> float:
    """The sum of the samples of that name with these labels; 0 where there is none."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())
