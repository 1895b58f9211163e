"""Reads the cards of exports with the library of the Hugging Face Hub, which checks the front matter.

usage: test_cards.py EXPORT...
"""
import pathlib
import sys

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import metadata_load

for folder in map(pathlib.Path, sys.argv[1:]):
    path = folder / "README.md"
    card, metadata = ModelCard.load(path), metadata_load(path)
    data = card.data
    assert data.license == "mit" and data.library_name == "docre-pretrain", data
    assert data.language == ["en"] and data.datasets == ["org/docs", "docs"], data
    assert "relation-extraction" in data.tags, data
    assert "base_model" not in metadata, metadata
    # The index of results is read without losses, and written as it was.
    results = [entry for model in metadata.get("model-index", []) for entry in model["results"]]
    metrics = sum(len(entry["metrics"]) for entry in results)
    assert len(data.eval_results or []) == metrics, (metrics, data.eval_results)
    if results:
        assert data.model_name == metadata["model-index"][0]["name"], data.model_name
        again = ModelCardData(**{key: value for key, value in data.__dict__.items() if value is not None})
        index = again.to_dict()["model-index"]
        assert sum(len(entry["metrics"]) for entry in index[0]["results"]) == metrics, index
        for result in data.eval_results:
            assert 0 <= result.metric_value <= 100 and result.dataset_split in ("dev", "test"), result
    print(f"{folder.name}: {metrics} scores, {len(card.text.split())} words")
