"""Tests that no class has the name of another one, and that functions say what they do."""

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "dlq_pipelines"
MODULES = [ast.parse(file.read_text("utf-8")) for file in PACKAGE.rglob("*.py")]


def test_no_two_classes_have_one_name() -> None:
    names = Counter(
        node.name for tree in MODULES for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    assert len(names) > 300
    assert [name for name, count in names.items() if count > 1] == []


def test_few_public_functions_have_one_word() -> None:
    """A verb and its object can be understood without the module: all but one in ten have them."""
    names = [
        node.name
        for tree in MODULES
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    assert len(names) > 500
    assert 10 * sum("_" not in name for name in names) < len(names)
