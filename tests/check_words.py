"""Reports phrases that this project avoids. codespell reports the single words.

The phrases are listed in `.codespell/phrases.txt`. A phrase is found across line ends and comment
markers. Only its first letter may be a capital, because Python's `is None` is not a phrase.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PHRASES = ROOT / ".codespell" / "phrases.txt"
# Files by others, and the lists of words themselves.
_SKIPPED = re.compile(r"(?:LICENSE|\.codespell/.*|tests/data/.*|.*\.(?:lock|png|svg))\Z")
_GAP = r"\s+(?:(?:\#+|--|//)\s+)?"
_WORDS = rf"(?:[\w`'-]+{_GAP}){{1,4}}"


def read_phrases() -> dict[str, str]:
    """Return the suggestion for each phrase."""
    lines = PHRASES.read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(" -> ") for line in lines if line and not line.startswith("#")]
    return {phrase: suggestion for phrase, _, suggestion in pairs}


def compile_pattern(phrase: str) -> re.Pattern[str]:
    """Return a pattern for the phrase, in which `...` stands for one to four words."""
    first, *rest = phrase.split()
    text = rf"\b[{first[0].upper()}{first[0]}]{re.escape(first[1:])}{_GAP}"
    for word in rest:
        text += _WORDS if word == "..." else re.escape(word) + _GAP
    return re.compile(rf"{text.removesuffix(_GAP)}\b")


def find_phrases(text: str, phrases: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Yield the line and the phrase of each match in a text."""
    for phrase in phrases:
        for match in compile_pattern(phrase).finditer(text):
            yield text.count("\n", 0, match.start()) + 1, phrase


def main() -> int:
    """Print each match as `file:line: phrase ==> suggestion`; return 1 if there is any."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    phrases = read_phrases()
    count = 0
    for name in files:
        path = ROOT / name
        if _SKIPPED.match(name) or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".j2":  # tags are code, and Jinja has a test for none
            text = re.sub(r"{%.*?%}", "", text)
        for line, phrase in sorted(find_phrases(text, phrases)):
            print(f"{name}:{line}: {phrase} ==> {phrases[phrase]}")
            count += 1
    print(f"{count} phrases found")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
